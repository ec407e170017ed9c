// A .cu or .cuh file as C++ that includes emulation/emulation.h: node translate.mjs FROM TO. Only launches and shared
// variables are rewritten, in their lines, so that messages name the lines of the .cu file.
import { readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'

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
  if (/<<<|__shared__/.test(result))
    throw new Error(`${name} launches a kernel or declares shared memory in a way that translate.mjs does not know`)
  return `#include "emulation.h"\n#line 1 "${name}"\n${result}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [from, to] = process.argv.slice(2)
  writeFileSync(to, translate(readFileSync(from, 'utf8'), basename(from)))
}
