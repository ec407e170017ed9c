// A .cu or .cuh file as C++ that includes emulation/emulation.h: node translate.mjs FROM TO. Only launches, shared
// variables and PTX instructions are rewritten, in their lines, so that messages name the lines of the .cu file.
import { readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'

/** One `asm(...)` as a call of what emulation/mma.cc knows. @param {string} inside @returns {string | null} */
function instruction(inside) {
  const parts = /^((?:\s*"[^"]*")+)\s*:([^:]*)(?::([^:]*)(?::[^:]*)?)?$/.exec(inside)
  if (!parts) return null
  const operands = [parts[2], parts[3] ?? ''].map((given) =>
    given.replace(/"([=+]?\w)"\(((?:[^()]|\([^()]*\))*)\)/g, '::emulation::Operand("$1", $2)').trim(),
  )
  return `::emulation::ptx(${parts[1]}, {${operands.filter(Boolean).join(', ')}});`
}

/** @param {string} text @param {string} name of the file, for messages */
export function translate(text, name) {
  const result = text
    .replace(
      /([\w:]+)(<[^<>;(){}]*>)?<<<(.+?)>>>\(/gs,
      (_, kernel, types = '', shape) =>
        `::emulation::launch("${name.replace(/\.cuh?$/, '')}::${kernel}", ${kernel}${types}, ${shape})(`,
    )
    .replace(
      /^extern __shared__ (?:__align__\(\d+\) )?([\w ]+) (\w+)\[\];/gm,
      '#define $2 (static_cast<$1*>(::emulation::dynamic_memory()))',
    )
    .replace(
      /__shared__ ([^;[]+) (\w+)((?:\[[^;\]]+\])*);/g,
      'static const char $2_key = 0; auto& $2 = ::emulation::shared_variable<$1$3>($2_key);',
    )
    .replace(/\basm(?: volatile)?\(([^;]*?;[^;]*?)\);/g, (whole, inside) => {
      const made = instruction(inside) ?? whole
      return made + '\n'.repeat(Math.max(0, whole.split('\n').length - made.split('\n').length))
    })
  if (/\basm\b/.test(result)) throw new Error(`${name} has PTX in a way that translate.mjs does not know`)
  if (/<<<|__shared__/.test(result))
    throw new Error(`${name} launches a kernel or declares shared memory in a way that translate.mjs does not know`)
  return `#include "emulation.h"\n${result.includes('::emulation::ptx(') ? '#include "mma.h"\n' : ''}#line 1 "${name}"\n${result}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [from, to] = process.argv.slice(2)
  writeFileSync(to, translate(readFileSync(from, 'utf8'), basename(from)))
}
