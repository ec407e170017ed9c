// Mutation testing of lib/: do the tests notice when the code is wrong? Breaks the compiled modules one small place at a
// time (a comparison, a constant, a dropped statement), runs the test files that are closest to the module, and lists the
// changes that none of them noticed. Each of those needs a test, or a reason why no test can see it.
//
//   node scripts/test-mutations.mjs --modules train,text --count 50 --seed 1 --report mutations.json
//
// `--modules` limits the modules by the start of their path below lib/, `--per-module` the changes of one module (4), `--files`
// the test files that run for a change (8), the nearest BATCH of them first, all in one process. Test files that take longer
// than SLOW_MS do not run. The same seed draws the same changes.
// Nothing in lib/ is written: the changes are made in dist/modules/, bundled only where a test file starts threads or
// processes, and undone, also on Ctrl+C. Run `npm run build` first.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import ts from 'typescript'
import { bundle } from './bundle.mjs'

/** @typedef {{ module: string, line: number, kind: string, start: number, end: number, text: string, source: string }} Mutation */

const root = fileURLToPath(new URL('..', import.meta.url))
const compiled = join(root, 'dist/modules')
/** A test run that takes longer has hung, which counts as noticed. */
const LIMIT_MS = 120_000
const SLOW_MS = 20_000
/** The nearest test files notice most changes, so the others run only for what they let pass. */
const BATCH = 3

const { values } = parseArgs({
  options: {
    modules: { type: 'string', default: '' },
    count: { type: 'string', default: '100' },
    seed: { type: 'string', default: '1' },
    files: { type: 'string', default: '8' },
    'per-module': { type: 'string', default: '4' },
    report: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
})

/** @type {Record<string, string>} */
const OPPOSITE = {
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '===': '!==',
  '!==': '===',
  '&&': '||',
  '||': '&&',
  '-': '+',
  '*': '/',
  '/': '*',
  '%': '*',
}

/** Every place of a module that can be broken. @param {string} path @returns {Mutation[]} */
function mutationsOf(path) {
  const text = readFileSync(path, 'utf8')
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS)
  /** @type {Mutation[]} */
  const found = []
  /** @param {ts.Node} node @param {string} kind @param {string} replacement */
  const add = (node, kind, replacement) => {
    const start = node.getStart(file)
    const { line } = file.getLineAndCharacterOfPosition(start)
    const source = `${text.slice(start, node.end).slice(0, 80)} -> ${replacement || '(nothing)'}`
    found.push({
      module: relative(compiled, path),
      line: line + 1,
      kind,
      start,
      end: node.end,
      text: replacement,
      source,
    })
  }
  /** @param {ts.Node} node */
  const visit = (node) => {
    // The compiler's own code for `using`.
    if (ts.isVariableStatement(node) && /^var __/.test(node.getText(file))) return
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node) || ts.isThrowStatement(node)) return
    if (ts.isBinaryExpression(node)) {
      const operator = node.operatorToken.getText(file)
      if (OPPOSITE[operator]) add(node.operatorToken, 'operator', OPPOSITE[operator])
    } else if (ts.isNumericLiteral(node)) add(node, 'constant', `(${node.text} + 1)`)
    else if (node.kind === ts.SyntaxKind.TrueKeyword) add(node, 'constant', 'false')
    else if (node.kind === ts.SyntaxKind.FalseKeyword) add(node, 'constant', 'true')
    else if (ts.isConditionalExpression(node)) add(node.condition, 'condition', `!(${node.condition.getText(file)})`)
    else if (ts.isIfStatement(node) && !node.elseStatement) add(node, 'dropped if', '')
    else if (ts.isExpressionStatement(node) && !/^["']/.test(node.getText(file))) add(node, 'dropped statement', ';')
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

/** Numbers in [0, 1) that the seed alone decides (mulberry32). @param {number} seed */
function random(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** @template T @param {T[]} items @param {() => number} draw */
function shuffle(items, draw) {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1))
    const [a, b] = [/** @type {T} */ (items[i]), /** @type {T} */ (items[j])]
    items[i] = b
    items[j] = a
  }
  return items
}

/** The files below a folder of the repository that end so, as paths in it. @param {string} folder @param {string} end */
const filesBelow = (folder, end) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith(end))

const tests = filesBelow('test', '.test.ts')
  .map((path) => `test/${path}`)
  .filter((path) => !path.startsWith('test/cuda') && !path.startsWith('test/setup'))
  .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))

/** The cases of each fixture, which name what a test file goes through. @type {Map<string, string>} */
const fixtures = new Map(
  filesBelow('test/fixtures', '.safetensors').map((path) => {
    const bytes = readFileSync(join(root, 'test/fixtures', path))
    return [path.replace(/\.safetensors$/, ''), bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE()))]
  }),
)
for (const test of tests) {
  for (const [, path] of [...test.text.matchAll(/from '(\.\/[^']+)\.js'/g)]) {
    const shared = join(root, dirname(test.path), `${path}.ts`)
    if (existsSync(shared)) test.text += readFileSync(shared, 'utf8')
  }
  const words = new Set([...test.text.matchAll(/['"`]([\w/-]+)['"`]/g)].map((match) => match[1] ?? ''))
  const folders = [...test.text.matchAll(/`([\w/-]+\/)\$\{/g)].map((match) => match[1] ?? '')
  for (const [name, cases] of fixtures) {
    const inFolder = folders.some((folder) => name.startsWith(folder) && words.has(name.slice(folder.length)))
    if (words.has(name) || inFolder) test.text += cases
  }
}

/** Durations of the test files when vitest last ran them: vitest's own cache. @type {Map<string, number>} */
const durations = new Map()
const caches = join(root, 'node_modules/.vite/vitest')
for (const folder of existsSync(caches) ? readdirSync(caches) : []) {
  /** @type {{ results: [string, { duration: number }][] }} */
  const { results } = JSON.parse(readFileSync(join(caches, folder, 'results.json'), 'utf8'))
  for (const [name, { duration }] of results) durations.set(name.slice(name.indexOf(':') + 1), duration)
}

/** The test files that start threads or processes, which load the bundle. */
const spawning = new Set(
  tests
    .filter(({ text }) => /child_process|worker|dist\/|launch|fork|readAudio|readVideo/i.test(text))
    .map(({ path }) => path),
)

/** @param {string} module */
const sourceOf = (module) => readFileSync(join(root, 'lib', module.replace(/\.js$/, '.ts')), 'utf8')
/** The names that a module exports, but for those too short to be searched for. @param {string} source @returns {string[]} */
const exportsOf = (source) =>
  [...source.matchAll(/^export (?:async )?(?:abstract )?(?:function|class|const)\*? (\w{4,})/gm)].map(
    (match) => match[1] ?? '',
  )
const everyModule = filesBelow('dist/modules', '.js').filter((path) =>
  existsSync(join(root, 'lib', path.replace(/\.js$/, '.ts'))),
)
/** The modules that import each module. @type {Map<string, string[]>} */
const importers = new Map()
for (const importer of everyModule) {
  for (const [, path] of sourceOf(importer).matchAll(/from '(\.[^']+)'/g)) {
    const module = join(dirname(importer), path ?? '')
    importers.set(module, [...(importers.get(module) ?? []), importer])
  }
}

/**
 * The test files nearest to a module: those that import it, name what it or a module that imports it exports, or lie in its
 * folder. @param {string} module
 */
function testsOf(module) {
  const names = exportsOf(sourceOf(module))
  const users = (importers.get(module) ?? []).flatMap((importer) => exportsOf(sourceOf(importer)))
  const folder = dirname(module)
  const base = module.replace(/^.*\//, '').replace(/\.js$/, '')
  const scored = tests.map(({ path, text }) => {
    const imports = [...text.matchAll(/from '(\.[^']+)'/g)].map((match) => resolve(root, dirname(path), match[1] ?? ''))
    /** @param {string[]} list */
    const named = (list) => list.filter((name) => text.includes(name)).length
    let score = imports.includes(join(root, 'lib', module)) ? 100 : 0
    score += Math.min(50, 10 * named(names)) + Math.min(20, 4 * named(users))
    if (dirname(path) === `test/${folder}`) score += 8
    else if (`test/${folder}/`.startsWith(`${dirname(path)}/`)) score += 4
    const [top = '', ...below] = folder.split('/')
    if (path.startsWith(`test/${top}/`) && path.includes(base)) score += 30
    if (path.startsWith(`test/${top}/`) && below.some((name) => path.includes(name))) score += 15
    return { path, score }
  })
  return scored
    .filter(({ path, score }) => score >= 4 && (durations.get(path) ?? 0) <= SLOW_MS)
    .sort((a, b) => b.score - a.score || a.path.localeCompare(b.path))
    .slice(0, Number(values.files))
    .map(({ path }) => path)
}

/** The first of these test files that fail: all of them where they hang. @param {string[]} files @returns {Promise<string[]>} */
function failing(files) {
  return new Promise((done) => {
    const vitest = join(root, 'node_modules/vitest/vitest.mjs')
    const report = join(root, 'dist/.mutations.json')
    rmSync(report, { force: true })
    const reporter = ['--reporter=json', `--outputFile=${report}`]
    const quick = ['--bail=1', '--silent', '--no-isolate', '--maxWorkers=1', '--cache=false']
    const child = spawn(process.execPath, [vitest, 'run', ...quick, ...reporter, ...files], {
      cwd: root,
      stdio: 'ignore',
      detached: true,
    })
    const timer = setTimeout(() => process.kill(-Number(child.pid), 'SIGKILL'), LIMIT_MS)
    child.on('exit', (code) => {
      clearTimeout(timer)
      if (code === 0) return done([])
      if (!existsSync(report)) return done(files)
      /** @type {{ testResults: { name: string, status: string }[] }} */
      const { testResults } = JSON.parse(readFileSync(report, 'utf8'))
      const failed = testResults.filter(({ status }) => status === 'failed').map(({ name }) => relative(root, name))
      done(failed.length > 0 ? failed : files)
    })
  })
}

/** @type {(() => void) | null} */
let restore = null
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    restore?.()
    rmSync(join(root, 'dist/.stamp'), { force: true }) // the bundle is the broken one: the next build makes it anew
    process.exit(1)
  })
}

const draw = random(Number(values.seed))
const starts = values.modules.split(',')
const modules = everyModule
  .filter(
    (path) => !path.startsWith('native/generated') && !path.startsWith('serve/page/') && !path.endsWith('index.js'),
  )
  .filter((path) => starts.some((start) => path.startsWith(start)))
const drawn = shuffle(
  modules
    .sort()
    .flatMap((module) => shuffle(mutationsOf(join(compiled, module)), draw).slice(0, Number(values['per-module']))),
  draw,
)
  .slice(0, Number(values.count))
  .sort((a, b) => a.module.localeCompare(b.module) || a.start - b.start)

if (values.list) {
  for (const { module, line, kind, source } of drawn) console.log(`${module}:${line} ${kind}: ${source}`)
  process.exit(0)
}

/** Whether each test file that has noticed a change passes unbroken. @type {Map<string, Promise<boolean>>} */
const soundness = new Map()

/** @param {string} file */
function isSound(file) {
  const known = soundness.get(file) ?? bundle().then(async () => (await failing([file])).length === 0)
  soundness.set(file, known)
  return known
}

/** @type {(Mutation & { files: string[] })[]} */
const survivors = []
let noticed = 0
let untested = 0

/** Those of the test files that fail with the change made. @param {Mutation} mutation @param {string[]} files */
async function failingBroken(mutation, files) {
  const path = join(compiled, mutation.module)
  const original = readFileSync(path, 'utf8')
  restore = () => writeFileSync(path, original)
  writeFileSync(path, original.slice(0, mutation.start) + mutation.text + original.slice(mutation.end))
  // What does not even bundle would be noticed by anyone.
  const bundled = files.some((file) => spawning.has(file)) ? bundle() : Promise.resolve()
  const failed = await bundled.then(
    () => failing(files),
    () => files,
  )
  restore()
  restore = null
  return failed
}

/** @param {Mutation} mutation @param {string[]} files @returns {Promise<'noticed' | 'survived' | 'untested'>} */
async function outcome(mutation, files) {
  let sound = files
  for (;;) {
    if (sound.length === 0) return 'untested'
    const failed = await failingBroken(mutation, sound)
    if (failed.length === 0) return 'survived'
    for (const file of failed) if (await isSound(file)) return 'noticed'
    sound = sound.filter((file) => !failed.includes(file))
  }
}

for (const mutation of drawn) {
  const { module, line, kind, source } = mutation
  const files = testsOf(module)
  /** @type {string[]} */
  const outcomes = []
  for (let i = 0; i < files.length && !outcomes.includes('noticed'); i += BATCH) {
    outcomes.push(await outcome(mutation, files.slice(i, i + BATCH)))
  }
  const found = ['noticed', 'survived'].find((name) => outcomes.includes(name)) ?? 'untested'
  if (found === 'survived') survivors.push({ ...mutation, files })
  else if (found === 'noticed') noticed++
  else untested++
  const { length } = files
  const shown = source.replace(/\s+/g, ' ')
  console.log(
    `${found === 'noticed' ? 'noticed ' : found.toUpperCase()} ${module}:${line} ${kind}: ${shown} [${length}]`,
  )
  if (values.report) writeFileSync(values.report, JSON.stringify({ noticed, untested, survivors }, null, 1))
}
await bundle()
console.log(`${noticed} noticed, ${survivors.length} survived, ${untested} without a test file that names their module`)
