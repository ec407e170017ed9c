// Makes a fresh clone ready to test and run: packages, TypeScript, libtorch, native addon. Each step is skipped when what
// it makes is up to date, so a second run takes a fraction of a second. Node's own modules only: nothing is installed yet.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { bundle } from './bundle.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const TSC = join(root, 'node_modules/typescript/bin/tsc')
const STAMP = join(root, 'dist/.stamp')
const MISTYPED = 'lib/ does not compile; tsc says why above.'

/** @param {string} line */
const say = (line) => console.log(`[voxtorch] ${line}`)

/** An expected failure: its message says what to do, a stack would not help. */
class SetupError extends Error {}

/** @param {{ cuda?: boolean }} [options] */
export async function bootstrap({ cuda = false } = {}) {
  const started = performance.now()
  needNode()
  installPackages()
  // On a bare machine types are checked while libtorch is downloaded and the compiler starts: each leaves a core idle.
  const isBare = !existsSync(join(root, 'build/voxtorch.node'))
  await compileTypeScript({ check: !isBare })
  if (!existsSync(STAMP)) throw new SetupError(MISTYPED)
  const types = checkTypes()
  // From here on the compiled package helps itself: the same code serves `npx voxtorch install`.
  const { install } = await import(pathToFileURL(join(root, 'dist/cli/install.js')).href)
  await install({ build: true, cuda, report: say })
  if (!(await types)) throw new SetupError(MISTYPED)
  say(`ready (${seconds(started)} s in all)`)
}

function needNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if ((major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22) return
  throw new SetupError(`Node ${process.versions.node} is too old: voxtorch needs ^20.19 or >=22.12.`)
}

export function installPackages() {
  const reason = packagesStale()
  if (!reason) return
  const started = performance.now()
  say(`installing packages: ${reason}`)
  const options = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const npm = process.env.npm_execpath?.endsWith('.js')
    ? [process.execPath, process.env.npm_execpath, ...options]
    : ['npm', ...options]
  const { error, status } = spawnSync(npm[0], npm.slice(1), { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (error) throw new SetupError(`npm does not start (${error.message}). It comes with Node: https://nodejs.org.`)
  if (status !== 0) throw new SetupError('npm could not install the packages of package-lock.json; it says why above.')
  say(`packages installed (${seconds(started)} s)`)
}

/**
 * Compares what the lock asks for with what npm noted it has installed. Packages for other platforms may be absent.
 * @returns {string | null} why node_modules will not do
 */
export function packagesStale(directory = root) {
  const installed = join(directory, 'node_modules/.package-lock.json')
  if (!existsSync(installed)) return 'there is no node_modules'
  const wanted = JSON.parse(readFileSync(join(directory, 'package-lock.json'), 'utf8')).packages
  const present = JSON.parse(readFileSync(installed, 'utf8')).packages
  for (const [path, { version, optional }] of Object.entries(wanted)) {
    if (path === '') continue
    if (!present[path] && optional) continue
    const found = present[path] && existsSync(join(directory, path)) ? present[path].version : 'absent'
    if (found !== version) return `${path} is ${found}, the lock has ${version}`
  }
  return null
}

/**
 * Compiles lib/ to dist/modules/ and bundles those to dist/ when lib/ has changed. `check: false` skips the type check, for a quick turn between tests.
 * @param {{ check?: boolean }} [options]
 */
export async function compileTypeScript({ check = true } = {}) {
  const started = performance.now()
  const sources = hashTree(['lib', 'package.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts/bundle.mjs'])
  const have = existsSync(STAMP) ? readFileSync(STAMP, 'utf8') : ''
  if (have === `${sources} checked` || (!check && have === `${sources} unchecked`)) return
  rmSync(STAMP, { force: true })
  removeOrphans()
  const values = [TSC, '-p', 'tsconfig.build.json', ...(check ? [] : ['--noCheck'])]
  const { status } = spawnSync(process.execPath, values, { cwd: root, stdio: 'inherit' })
  if (status !== 0 && check) throw new SetupError(MISTYPED)
  if (status !== 0) return say('lib/ has syntax errors; what could be compiled is in dist/modules/')
  await bundle()
  writeFileSync(STAMP, `${sources} ${check ? 'checked' : 'unchecked'}`)
  say(`TypeScript compiled${check ? '' : ' without type check'} (${seconds(started)} s)`)
}

/** Checks the types of what was compiled without. Returns whether they are right. @returns {Promise<boolean>} */
export async function checkTypes() {
  const have = readFileSync(STAMP, 'utf8')
  if (!have.endsWith(' unchecked')) return true
  const child = spawn(process.execPath, [TSC, '-p', 'tsconfig.build.json', '--noEmit'], { cwd: root, stdio: 'inherit' })
  const status = await new Promise((resolve) => child.once('close', resolve))
  if (status === 0) writeFileSync(STAMP, have.replace(/ unchecked$/, ' checked'))
  return status === 0
}

/** Removes what no source makes any more. */
function removeOrphans() {
  const dist = join(root, 'dist/')
  for (const path of files(dist)) {
    const source = path
      .slice(dist.length)
      .replace(/^modules\//, '')
      .replace(/(\.d\.ts|\.js|\.js\.map)$/, '')
    if (path.endsWith(source)) continue
    if (!['.ts', '.js'].some((end) => existsSync(join(root, 'lib', `${source}${end}`)))) rmSync(path)
  }
}

/** @param {string[]} names */
function hashTree(names) {
  const hash = createHash('sha256')
  for (const path of names.flatMap((name) => files(join(root, name)))) {
    hash
      .update(`${path.slice(root.length)}\0`)
      .update(readFileSync(path))
      .update('\0')
  }
  return hash.digest('hex')
}

/** @param {string} path @returns {string[]} */
function files(path) {
  if (!existsSync(path)) return []
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path)
    .sort()
    .flatMap((name) => files(join(path, name)))
}

/** @param {number} started */
const seconds = (started) => ((performance.now() - started) / 1000).toFixed(1)

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  bootstrap({ cuda: process.argv.includes('--cuda') }).catch((error) => {
    const expected = error instanceof SetupError || error.name === 'LibtorchError'
    console.error(expected ? `[voxtorch] ${error.message}` : error)
    process.exitCode = 1
  })
}
