import { join } from 'node:path'
import { expect, test } from 'vitest'
import { prebuildProblem } from '../../scripts/prepack.mjs'
import { temporary, write } from './fakes.js'

const addon = ['voxtorch.node', 'voxtorch_loader.node', 'libvoxtorch_core.so', 'voxtorch-build.json']

test('packing without an addon for this machine is refused, unless that was asked for', () => {
  const prebuilds = temporary()
  const place = (platform: string, files: string[]) => {
    for (const name of files) write(join(prebuilds, 'torch2.13-cpu/prebuilds', platform, name))
  }
  const here = `${process.platform}-${process.arch}`
  const refused = new RegExp(`no whole addon for ${here}.*npm run prebuild.*--no-prebuild`)
  expect(prebuildProblem(join(prebuilds, 'none'), {})).toMatch(refused)
  place('other-machine', addon)
  expect(prebuildProblem(prebuilds, {})).toMatch(refused)
  place(here, addon.slice(1))
  expect(prebuildProblem(prebuilds, {})).toMatch(refused)
  // As npm hands over `--no-prebuild`.
  expect(prebuildProblem(prebuilds, { npm_config_prebuild: '' })).toBeUndefined()
  expect(prebuildProblem(prebuilds, { VOXTORCH_NO_PREBUILD: '1' })).toBeUndefined()
  expect(prebuildProblem(prebuilds, { VOXTORCH_NO_PREBUILD: '0' })).toMatch(refused)
  place(here, addon)
  expect(prebuildProblem(prebuilds, {})).toBeUndefined()
})
