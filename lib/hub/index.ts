export { setDownloadProgress } from './progress.js'
export { type ResolveModelOptions, resolveModel } from './resolve.js'
export { type FetchWeightsOptions, fetchWeights, type PublishedWeights, publishedWeights } from './weights.js'
