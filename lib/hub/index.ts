export { type FetchWeightsOptions, fetchWeights, type PublishedWeights, publishedWeights } from './weights.js'
export { type ResolveModelOptions, resolveModel } from './resolve.js'
