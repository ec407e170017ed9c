// Bundles the compiled modules into what users load: to find and link hundreds of small files takes a fifth of the import.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const dist = fileURLToPath(new URL('../dist/', import.meta.url))

/** Entry points: modules that users, programs, threads, scripts and benchmarks load by path. All share their code. */
const ENTRIES = [
  'index',
  // The subpaths of package.json's exports.
  'files/index',
  'serve/index',
  'tuning/index',
  'languagebind',
  'systems/emotion/index',
  'systems/emoverse/index',
  'systems/salmonn/index',
  'systems/spectra/index',
  'systems/usdm/index',
  'cli/main',
  'cli/install',
  'data/worker',
  'audio/decoder-worker',
  'files/parquet/block-codecs-worker',
  'vision/video-worker',
  'serve/page/app',
  'serve/page/recorder-worklet',
  'native/load',
  'native/call',
]

/** dist/modules/ to dist/. */
export async function bundle() {
  const { build } = await import('rolldown') // not there before packages are installed
  rmSync(join(dist, 'chunks'), { recursive: true, force: true })
  await build({
    cwd: dist,
    input: Object.fromEntries(ENTRIES.map((name) => [name, join(dist, 'modules', `${name}.js`)])),
    external: /^[^./]/,
    platform: 'node',
    logLevel: 'warn',
    output: {
      dir: dist,
      format: 'esm',
      chunkFileNames: 'chunks/[name]-[hash].js',
      sourcemap: true,
    },
  })
}
