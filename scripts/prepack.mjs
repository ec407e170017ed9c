// Before `npm pack`: what the tarball needs and git does not have. It fails without an addon for this machine, which
// users would have to build; `npm pack --no-prebuild`, or VOXTORCH_NO_PREBUILD=1, packs the sources alone.
import { chmodSync, existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compileTypeScript } from './bootstrap.mjs'
import { declareRequire } from './declare-require.mjs'
import { PARTS } from './prebuild.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * Return the reason against packing now, or undefined.
 * @param {string} prebuilds @param {NodeJS.ProcessEnv} environment npm hands its options over here, `--no-` as nothing
 */
export function prebuildProblem(prebuilds = join(root, 'prebuilds'), environment = process.env) {
  const { npm_config_prebuild: option, VOXTORCH_NO_PREBUILD: variable } = environment
  if (option === '' || option === 'false' || (variable !== undefined && variable !== '0' && variable !== ''))
    return undefined
  const platform = `${process.platform}-${process.arch}`
  const variants = existsSync(prebuilds)
    ? readdirSync(prebuilds).filter((name) => /^torch.*-(cpu|cu\d+)$/.test(name))
    : []
  const has = (/** @type {string} */ variant) =>
    PARTS.every((name) => existsSync(join(prebuilds, variant, 'prebuilds', platform, name)))
  if (variants.some(has)) return undefined
  return (
    `prebuilds/ has no whole addon for ${platform}, so whoever installs the package would have to compile it. ` +
    'Run `npm run prebuild` first, or pack the sources alone: npm pack --no-prebuild'
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const problem = prebuildProblem()
  if (problem === undefined) await prepare()
  else {
    console.error(`[voxtorch] ${problem}`)
    process.exitCode = 1
  }
}

async function prepare() {
  await compileTypeScript()
  declareRequire()
  chmodSync(join(root, 'dist/cli/main.js'), 0o755)
}
