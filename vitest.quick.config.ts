import base from './vitest.config.js'
const config = base as { test: Record<string, unknown> }
Object.assign(config.test, { globalSetup: [], maxWorkers: 1 })
export default config
