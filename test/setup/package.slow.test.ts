import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const repository = fileURLToPath(new URL('../../', import.meta.url))

// On every supported Node: `npm run check:package`.
test.runIf(existsSync(`${repository}build/voxtorch.node`))(
  'the packed package installs and runs in an ESM, a CommonJS and a TypeScript project, where its commands train',
  () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/check-package.mjs', '--current'], {
      cwd: repository,
      encoding: 'utf8',
    })
    expect(status, `${stdout}\n${stderr}`).toBe(0)
    expect(stdout.match(new RegExp(`^${process.version} 10\\.5$`, 'gm'))).toHaveLength(3)
    for (const command of ['spectra finetune', 'salmonn train', 'launch --help'])
      expect(stdout).toContain(`$ voxtorch ${command}`)
    // libtorch's own minor version and the CPU, as node-gyp-build looks for it.
    expect(stderr).toContain('gyp info ok')
  },
)
