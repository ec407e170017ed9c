export { type ResolveModelOptions, resolveModel } from './resolve.js'
