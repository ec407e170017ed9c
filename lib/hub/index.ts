export { setDownloadProgress } from './progress.js'
export { type PushToHubOptions, pushToHub } from './push.js'
export { type ResolveModelOptions, resolveModel } from './resolve.js'
export { fetchWeights, publishedWeights } from './weights.js'
