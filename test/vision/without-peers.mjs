// Node's resolution without the packages that read coded pictures and videos: preloaded by without-peers.test.ts.
import { register } from 'node:module'

register(
  `data:text/javascript,${encodeURIComponent(`
export async function resolve(specifier, context, next) {
  if (!/^(?:sharp|node-av)(?:\\/|$)/.test(specifier)) return next(specifier, context)
  throw Object.assign(new Error('Cannot find package ' + specifier), { code: 'ERR_MODULE_NOT_FOUND' })
}`)}`,
)
