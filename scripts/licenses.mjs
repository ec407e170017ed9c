// Check the licenses of the packages that `npm install voxtorch` installs, and write THIRD-PARTY-NOTICES:
//   node scripts/licenses.mjs
// test/setup/licenses.test.ts compares the file, and fails on copyleft licenses.
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * Licenses that require only a notice. MPL-2.0 is left out: it requires publishing changed files, an obligation that
 * `npm install voxtorch` must not bring.
 */
const PERMISSIVE = [
  'MIT',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'Apache-2.0',
  'CC0-1.0',
  'Unlicense',
  'BlueOak-1.0.0',
  'Zlib',
]

/** Names of copyleft code that a package may be compiled from, whatever license its package.json states. */
const COMPILED_IN = /\b(mpg123|faad2?|libmad|lame|ffmpeg|libav\w*|liba52|libdca|x264|x265|espeak(-ng)?)\b/i
const COPYLEFT = /GNU (Lesser |Library |Affero )?General Public Licen|\b[AL]?GPL(v|-)?\d|Mozilla Public Licen/i
const TEXT = /\.(md|txt|json|[cm]?[jt]s|[ch]|cc|cpp)$|(^|\/)(licen[cs]e|copying|notice|readme)[^/]*$/i
const MOST_TEXT = 4 << 20

/**
 * @typedef {{ version?: string, license?: string, dev?: boolean, peer?: boolean, link?: boolean }} Locked
 * @typedef {{ path: string, name: string, version: string, license: string }} Package
 */

/** Return the packages of a lock file that users install. @param {string} directory @returns {Package[]} */
export function production(directory = root) {
  const { packages } = JSON.parse(readFileSync(join(directory, 'package-lock.json'), 'utf8'))
  return Object.entries(/** @type {Record<string, Locked>} */ (packages))
    .filter(([path, { dev, peer }]) => path !== '' && !dev && !peer)
    .map(([path, { version = '', license = 'none' }]) => ({
      path,
      name: path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length),
      version,
      license,
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Return the license problems of those packages, one line each. @param {string} directory */
export function licenseProblems(directory = root) {
  return production(directory).flatMap(({ path, name, license }) => {
    const problems = []
    const choices = license.replace(/^\((.*)\)$/, '$1').split(' OR ')
    if (!choices.some((choice) => PERMISSIVE.includes(choice))) problems.push(`${name} is under ${license}`)
    const folder = join(directory, path)
    // A package for another platform is not installed.
    if (!existsSync(folder)) return problems
    const {
      description = '',
      keywords = [],
      license: own,
    } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
    if (own !== license) problems.push(`${name}: package.json states ${own}, the lock file ${license}`)
    const compiled = COMPILED_IN.exec([name, description, ...keywords].join(' '))
    if (compiled !== null) problems.push(`${name} is compiled from ${compiled[0]}, which is under the GPL or LGPL`)
    for (const file of files(folder)) {
      if (!TEXT.test(file) || file === join(folder, 'package.json') || statSync(file).size > MOST_TEXT) continue
      const found = COPYLEFT.exec(readFileSync(file, 'utf8'))
      if (found !== null) problems.push(`${name}: ${file.slice(folder.length + 1)} mentions "${found[0]}"`)
    }
    return problems
  })
}

/** @param {string} folder @returns {string[]} */
function files(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : files(path)
    return entry.isFile() ? [path] : []
  })
}

const MIT = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`

/** Return the text of THIRD-PARTY-NOTICES. */
export function notices() {
  const packages = production().map(({ path, name, version, license }) => ({
    title: `${name} ${version} (${license})`,
    text: licenseTexts(join(root, path), name),
  }))
  const parts = [
    ...packages,
    {
      title: 'libopus, inside opus-decoder (BSD-3-Clause)',
      text: readFileSync(join(root, 'scripts/licenses/libopus.txt'), 'utf8').trim(),
    },
  ]
  // Most packages under the Apache License share its text.
  const titles = new Map(/** @type {[string, string[]][]} */ ([]))
  for (const { title, text } of parts) titles.set(text, [...(titles.get(text) ?? []), title])
  const line = '='.repeat(80)
  return `voxtorch is under the Apache License 2.0 (LICENSE). It is installed with the packages below. Each has its own license;
all of them are permissive. Written by scripts/licenses.mjs.

Installed separately, and only on request: libtorch (BSD-3-Clause, with the notices in its own folder),
@huggingface/hub (MIT), @audio/decode-aac (GPL-2.0), which reads AAC and M4A, sharp (Apache-2.0, with libvips under the
LGPL-3.0), which reads JPEG, PNG and WebP, and node-av (MIT, with an FFmpeg under the GPL-3.0), which reads video.

${[...titles].map(([text, of]) => `${line}\n${of.join('\n')}\n${line}\n\n${text}\n`).join('\n')}`
}

/** @param {string} folder @param {string} name */
function licenseTexts(folder, name) {
  const found = readdirSync(folder)
    .filter((file) => /^(licen[cs]e|notice|copying)/i.test(file))
    .sort()
  if (found.length > 0) {
    return found.map((file) => readFileSync(join(folder, file), 'utf8').replaceAll('\r\n', '\n').trim()).join('\n\n')
  }
  const { license, author } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  if (license !== 'MIT') throw new Error(`${name}: expected a license file for ${license}, found none.`)
  return `The package has no license file; its package.json states MIT.\nCopyright (c) ${author?.name ?? author}\n\n${MIT}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const problems = licenseProblems()
  for (const problem of problems) console.error(problem)
  writeFileSync(join(root, 'THIRD-PARTY-NOTICES'), notices())
  process.exitCode = problems.length > 0 ? 1 : 0
}
