import { fileURLToPath } from 'node:url'
import { mergeConfig } from 'vitest/config'
import base from '../../../vitest.config.js'
import { leftOut } from './exclusions.js'

// Suites of the library with the pretended CUDA device as the default one:
//   npx vitest run --config test/cuda/device/vitest.config.ts test/models
const preload = fileURLToPath(new URL('preload.mjs', import.meta.url))

const { projects: _, ...test } = base.test ?? {}

export default mergeConfig(
  { ...base, test },
  {
    root: fileURLToPath(new URL('../../..', import.meta.url)),
    test: {
      include: ['test/**/*.test.ts', 'test/cuda/device/*.device.ts'],
      exclude: ['test/cuda/**/*.test.ts', ...leftOut.map(({ file }) => file)],
      setupFiles: ['test/cuda/device/each-file.ts'],
      execArgv: ['--import', preload],
      // Kernels of one thread: nothing here asks for time.
      env: { OMP_NUM_THREADS: '1' },
    },
  },
)
