// Node's resolution without the packages that read coded pictures and videos: preloaded by without-peers.test.ts.
import { register, syncBuiltinESMExports } from 'node:module'
import threads from 'node:worker_threads'

register(
  `data:text/javascript,${encodeURIComponent(`
export async function resolve(specifier, context, next) {
  if (!/^(?:sharp|node-av)(?:\\/|$)/.test(specifier)) return next(specifier, context)
  throw Object.assign(new Error('Cannot find package ' + specifier), { code: 'ERR_MODULE_NOT_FOUND' })
}`)}`,
)

// Threads that decode are started without what the process was started with: they get this again.
const { Worker } = threads
threads.Worker = class extends Worker {
  /** @param {string | URL} file @param {import('node:worker_threads').WorkerOptions} [options] */
  constructor(file, options) {
    super(file, { ...options, execArgv: ['--import', import.meta.url] })
  }
}
syncBuiltinESMExports()
