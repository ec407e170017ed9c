// Puts the addon in build/ (or in the folder named) where the published package looks for it: prebuilds/README.md.
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** @returns {string} the folder of the variant, prebuilds/torch<minor>-<cpu|cu130> */
export function prebuild(build = join(root, 'build'), prebuilds = join(root, 'prebuilds')) {
  const { libtorch, cuda } = JSON.parse(readFileSync(join(build, 'voxtorch-build.json'), 'utf8'))
  const device = cuda ? `cu${cuda.split('.').slice(0, 2).join('')}` : 'cpu'
  const variant = join(prebuilds, `torch${libtorch}-${device}`)
  const directory = join(variant, 'prebuilds', `${process.platform}-${process.arch}`)
  mkdirSync(directory, { recursive: true })
  for (const name of ['voxtorch.node', 'voxtorch_loader.node', 'libvoxtorch_core.so', 'voxtorch-build.json']) {
    copyFileSync(join(build, name), join(directory, name))
  }
  return variant
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(prebuild(process.argv[2]))
