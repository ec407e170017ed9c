// Mutation testing of lib/: do the tests notice when the code is wrong? Breaks the compiled modules one small place at a
// time (a comparison, a constant, a dropped statement), runs the nearest test files that reach the place, and lists the
// changes that none of them noticed. Each of those needs a test, or a reason why no test can see it.
//
//   node test/tools/mutations.mjs --modules train,text --count 50 --seed 1 --report mutations.txt --minutes 9
//
// `--modules` limits the modules by the start of their path below lib/, `--per-module` the changes of one module (4),
// `--files` the test files that are tried for a module (8). The same seed draws the same changes. All changes are compiled in
// at once, each with a switch, so that one process runs many of them.
// Nothing in lib/ is written: the changes are made in dist/modules/ and undone, also on Ctrl+C. Run `npm run build` first.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import ts from 'typescript'
import { bundle } from '../../scripts/bundle.mjs'

/** @typedef {{ module: string, line: number, kind: string, start: number, end: number, text: string, source: string, late: boolean }} Mutation */

const root = fileURLToPath(new URL('../..', import.meta.url))
const compiled = join(root, 'dist/modules')
/** A test run that takes longer has hung, which counts as noticed. */
const LIMIT_MS = 90_000
/** Tests of a file that would start later than this are skipped. */
const SLOW_MS = 20_000

const { values } = parseArgs({
  options: {
    modules: { type: 'string', default: '' },
    count: { type: 'string', default: '100' },
    seed: { type: 'string', default: '1' },
    files: { type: 'string', default: '8' },
    'per-module': { type: 'string', default: '4' },
    report: { type: 'string' },
    list: { type: 'boolean', default: false },
    minutes: { type: 'string', default: '600' },
  },
})

/** Whether the mutation of this number is switched on. */
const ON = 'globalThis.voxtorchMutant?.(ID)'

const PAIRS = ['< <=', '> >=', '=== !==', '&& ||', '* /'].map((pair) => pair.split(' '))
/** @type {Record<string, string>} */
const OPPOSITE = { ...Object.fromEntries([...PAIRS, ...PAIRS.map(([a, b]) => [b, a])]), '-': '+', '%': '*' }

/**
 * Every place of a module that can be broken. The text of a mutation holds both versions, and `ID` where its number goes.
 * @param {string} path @returns {Mutation[]}
 */
function mutationsOf(path) {
  const text = readFileSync(path, 'utf8')
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS)
  /** @type {Mutation[]} */
  const found = []
  /** @param {ts.Node} node @param {string} kind @param {string} shown @param {string} replacement */
  const add = (node, kind, shown, replacement) => {
    const start = node.getStart(file)
    const line = file.getLineAndCharacterOfPosition(start).line + 1
    const source = `${text.slice(start, node.end).slice(0, 80)} -> ${shown}`
    // What runs while the module loads runs once in a process, whichever mutation is switched on later.
    const late = ts.findAncestor(node, (at) => ts.isFunctionLike(at) || ts.isPropertyDeclaration(at)) !== undefined
    found.push({ module: relative(compiled, path), line, kind, start, end: node.end, text: replacement, source, late })
  }
  /** @param {ts.Node} node */
  const visit = (node) => {
    const own = node.getText(file)
    // The compiler's own code for `using`.
    if (ts.isVariableStatement(node) && /^var __/.test(own)) return
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node) || ts.isThrowStatement(node)) return
    if (ts.isBinaryExpression(node)) {
      const operator = node.operatorToken.getText(file)
      const [left, right, other] = [node.left.getText(file), node.right.getText(file), OPPOSITE[operator]]
      if (other) add(node, 'operator', other, `(${ON} ? (${left}) ${other} (${right}) : ${own})`)
    } else if (ts.isNumericLiteral(node) && !(ts.isPropertyAssignment(node.parent) && node.parent.name === node)) {
      add(node, 'constant', `${own} + 1`, `(${ON} ? ${own} + 1 : ${own})`)
    } else if (node.kind === ts.SyntaxKind.TrueKeyword) add(node, 'constant', 'false', `(!${ON})`)
    else if (node.kind === ts.SyntaxKind.FalseKeyword) add(node, 'constant', 'true', `(!!${ON})`)
    else if (ts.isConditionalExpression(node)) {
      const condition = node.condition.getText(file)
      add(node.condition, 'condition', `!(${condition})`, `(${ON} ? !(${condition}) : (${condition}))`)
    } else if (ts.isIfStatement(node) && !node.elseStatement) {
      add(node.expression, 'dropped if', 'false', `!${ON} && (${node.expression.getText(file)})`)
    } else if (ts.isExpressionStatement(node) && !/^["']/.test(own)) {
      add(node, 'dropped statement', '(nothing)', `if (!${ON}) { ${own} }`)
    }
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

// What a test file's helpers name counts as named by it.
for (const test of tests) {
  for (const [, path] of [...test.text.matchAll(/from '(\.\/[^']+)\.js'/g)]) {
    const shared = join(root, dirname(test.path), `${path}.ts`)
    if (existsSync(shared)) test.text += readFileSync(shared, 'utf8')
  }
}

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
/**
 * The test files nearest to a module: those that import it, name what it exports, or lie in its folder.
 * @param {string} module
 */
function testsOf(module) {
  const names = exportsOf(sourceOf(module))
  const folder = dirname(module)
  const base = module.replace(/^.*\//, '').replace(/\.js$/, '')
  const scored = tests.map(({ path, text }) => {
    const imports = [...text.matchAll(/from '(\.[^']+)'/g)].map((match) => resolve(root, dirname(path), match[1] ?? ''))
    let score = imports.includes(join(root, 'lib', module)) ? 100 : 0
    score += Math.min(50, 10 * names.filter((name) => text.includes(name)).length)
    if (dirname(path) === `test/${folder}`) score += 8
    else if (`test/${folder}/`.startsWith(`${dirname(path)}/`)) score += 4
    const [top = ''] = folder.split('/')
    if (path.startsWith(`test/${top}/`) && path.includes(base)) score += 30
    return { path, score }
  })
  return scored
    .filter(({ score }) => score >= 4)
    .sort((a, b) => b.score - a.score || a.path.localeCompare(b.path))
    .slice(0, Number(values.files))
    .map(({ path }) => path)
}

const deadline = Date.now() + Number(values.minutes) * 60_000
const draw = random(Number(values.seed))
const starts = values.modules.split(',')
/** Mutations of one module that do not overlap. @param {string} module */
const drawnOf = (module) =>
  shuffle(mutationsOf(join(compiled, module)), draw)
    .filter(({ start, end }, i, all) => all.slice(0, i).every((one) => one.end <= start || one.start >= end))
    .slice(0, Number(values['per-module']))
const modules = everyModule
  .filter((path) => !/^native\/generated|^serve\/page\/|index\.js$/.test(path))
  .filter((path) => starts.some((start) => path.startsWith(start)))
const drawn = shuffle(modules.sort().flatMap(drawnOf), draw)
  .slice(0, Number(values.count))
  .sort((a, b) => a.module.localeCompare(b.module) || a.start - b.start)

if (values.list) {
  for (const { module, line, kind, source } of drawn) console.log(`${module}:${line} ${kind}: ${source}`)
  process.exit(0)
}

/** Defines, in every process and thread, what tells whether a mutation is on, and notes which ones a test file reaches. */
const PRELUDE =
  'globalThis.voxtorchMutant ??= (id) => { const run = (globalThis.voxtorchRun ??= { on: Number(process.env.VOXTORCH_MUTANT), ' +
  'hits: process.env.VOXTORCH_HITS, seen: new Set() }); if (run.hits && !run.seen.has(id)) { run.seen.add(id); ' +
  "process.getBuiltinModule('node:fs').appendFileSync(run.hits, id + '\\n') } return run.on === id };"

/** @type {Map<string, string>} */
const originals = new Map()
const folder = join(root, 'test/.mutations')
const log = join(folder, 'log')
function restore() {
  for (const [path, text] of originals) writeFileSync(path, text)
  rmSync(folder, { recursive: true, force: true })
}
/** @type {import('node:child_process').ChildProcess | null} */
let child = null
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    if (child) process.kill(-Number(child.pid), 'SIGKILL')
    restore()
    rmSync(join(root, 'dist/.stamp'), { force: true }) // the bundle is the broken one: the next build makes it anew
    process.exit(1)
  })
}

/** @typedef {{ id: number, file: string, found: 'passed' | 'failed' | 'ended', hits: Set<number> }} Run */

/**
 * Runs test files, each with one mutation on (-1: none), one after the other in one process, but none for a mutation that an
 * earlier one noticed. Where the process hangs or ends, a new one continues after it. @param {{ id: number, file: string }[]} jobs
 * @returns {Promise<Run[]>}
 */
async function run(jobs, env = {}) {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  const settings = join(folder, 'config.ts')
  const text = `import { BaseSequencer } from 'vitest/node'
import base from '../../vitest.config.js'
class ByName extends BaseSequencer { override async sort(files: any[]) { return files.sort((a, b) => a.moduleId < b.moduleId ? -1 : 1) } }
export default { ...base, test: { ...base.test, projects: undefined, include: ['test/.mutations/*.test.ts'], sequence: { sequencer: ByName },
  isolate: false, maxWorkers: 1, testTimeout: 60000, hookTimeout: 60000, globalSetup: [] } }`
  writeFileSync(settings, text)
  const names = jobs.map((_, n) => join(folder, `${String(n).padStart(5, '0')}.test.ts`))
  for (const [n, { id, file }] of jobs.entries()) {
    const text = `import { appendFileSync as append, existsSync as exists } from 'node:fs'
import { afterAll, afterEach, beforeEach, test } from 'vitest'
process.env.VOXTORCH_MUTANT = '${id}'
process.env.VOXTORCH_HITS = '${folder}/hits-${n}'
Object.assign(globalThis, { voxtorchRun: undefined })
const began = Date.now()
let failed = false
if (exists('${folder}/noticed-${id}')) test.skip('noticed', () => {})
else {
  append('${log}', '${n} started\\n')
  beforeEach((context) => { if (failed || Date.now() - began > ${SLOW_MS}) context.skip() })
  afterEach((context) => { if (context.task.result?.state === 'fail') failed = true })
  afterAll(({}: object, suite: any) => {
    failed ||= suite.tasks?.some((task: any) => task.result?.state === 'fail')
    append('${log}', \`${n} \${failed ? 'failed' : 'passed'}\\n\`)
    if (failed && ${id} >= 0) append('${folder}/noticed-${id}', '')
  })
  await import('../../${file}?${n}')
}`
    writeFileSync(names[n] ?? '', text)
  }
  /** @type {Map<number, string>} */
  const states = new Map()
  const readLog = () => {
    const lines = existsSync(log) ? [...readFileSync(log, 'utf8').matchAll(/(\d+) (\w+)/g)] : []
    for (const [, n, state] of lines) states.set(Number(n), state ?? '')
    return lines.length
  }
  for (let left = names.length, before = -1; left > 0 && left !== before && Date.now() < deadline; ) {
    before = left
    const call = ['node_modules/vitest/vitest.mjs', 'run', '--silent', '--cache=false', '--config', settings]
    const options = { cwd: root, detached: true, env: { ...process.env, ...env } }
    const started = spawn(process.execPath, call, { ...options, stdio: 'ignore' })
    child = started
    const ended = new Promise((done) => started.on('exit', done))
    let [lines, since] = [readLog(), Date.now()]
    const timer = setInterval(() => {
      if (readLog() !== lines) [lines, since] = [readLog(), Date.now()]
      else if (Date.now() - since > LIMIT_MS || Date.now() > deadline) process.kill(-Number(started.pid), 'SIGKILL')
    }, 1000)
    await ended
    clearInterval(timer)
    child = null
    readLog()
    for (const [n, state] of states) {
      rmSync(names[n] ?? '', { force: true })
      if (state !== 'started') continue
      if (Date.now() > deadline) states.delete(n)
      else if ((jobs[n]?.id ?? -1) >= 0) writeFileSync(join(folder, `noticed-${jobs[n]?.id}`), '')
    }
    left = names.filter((name) => existsSync(name)).length
  }
  return [...states].map(([n, state]) => {
    const hits = join(folder, `hits-${n}`)
    const reached = existsSync(hits) ? readFileSync(hits, 'utf8').trim().split('\n').map(Number) : []
    const found = state === 'passed' || state === 'failed' ? state : 'ended'
    return { id: jobs[n]?.id ?? -1, file: jobs[n]?.file ?? '', found, hits: new Set(reached) }
  })
}

for (const module of new Set(drawn.map((one) => one.module))) {
  const path = join(compiled, module)
  const text = readFileSync(path, 'utf8')
  originals.set(path, text)
  let broken = text
  for (const one of drawn.filter((each) => each.module === module).reverse()) {
    const number = String(drawn.indexOf(one))
    broken = broken.slice(0, one.start) + one.text.replace('(ID)', `(${number})`) + broken.slice(one.end)
  }
  writeFileSync(path, broken.startsWith('#!') ? broken.replace('\n', `\n${PRELUDE}`) : PRELUDE + broken)
}
await bundle()

const nearest = new Map([...new Set(drawn.map(({ module }) => module))].map((module) => [module, testsOf(module)]))
const near = drawn.map(({ module }) => nearest.get(module) ?? [])
const whole = (await run([...new Set(near.flat())].map((file) => ({ id: -1, file })))).filter(
  ({ found }) => found === 'passed',
)
console.log(`${whole.length} test files pass with nothing changed`)
const reaching = drawn.map((_, id) =>
  (near[id] ?? []).filter((file) => whole.some((one) => one.file === file && one.hits.has(id))),
)
// The nearest test file of every mutation first, then the second of those that are left, and so on.
const jobs = drawn
  .flatMap((_, id) => (reaching[id] ?? []).map((file, rank) => ({ id, file, rank })))
  .sort((a, b) => a.rank - b.rank || a.file.localeCompare(b.file))
const runs = await run(jobs.filter(({ id }) => drawn[id]?.late))
for (const [id, { late }] of drawn.entries()) {
  const own = jobs.filter((job) => job.id === id)
  if (!late) runs.push(...(await run(own, { VOXTORCH_MUTANT: String(id) })))
}
const counts = { noticed: 0, SURVIVED: 0, UNREACHED: 0, 'NOT RUN': 0 }
const shown = drawn.map((one, id) => {
  const by = runs.find((each) => each.id === id && each.found !== 'passed')
  const reached = (reaching[id] ?? []).length
  const ran = runs.filter((each) => each.id === id).length
  const outcome = by ? 'noticed' : reached === 0 ? 'UNREACHED' : ran < reached ? 'NOT RUN' : 'SURVIVED'
  counts[outcome]++
  const source = one.source.replace(/\s+/g, ' ')
  const files = by ? `${by.file} ${by.found}` : (reaching[id] ?? []).join(' ')
  return `${outcome} ${one.module}:${one.line} ${one.kind}: ${source} [${files}]`
})
console.log(shown.join('\n'))
console.log(counts)
if (values.report) writeFileSync(values.report, `${shown.join('\n')}\n`)

const again = await run([...new Set(runs.map(({ file }) => file))].map((file) => ({ id: -1, file })))
const unsound = again.filter(({ found }) => found !== 'passed').map(({ file }) => file)
if (unsound.length > 0) console.log(`fail afterwards with nothing changed: ${unsound.join(', ')}`)
restore()
await bundle()
