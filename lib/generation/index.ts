export { ContinuousBatching, type ContinuousBatchingOptions } from './batching.js'
export type { LogitsProcessor, StoppingCriteria } from './callbacks.js'
export { type GenerationConfig, generationConfig } from './config.js'
export { ctcAlign, ctcBeamSearch } from './ctc.js'

export type { GenerateInputs, GenerateOptions, GenerateOutput, GenerateStep } from './generate.js'
export { KvCache } from './kv-cache.js'
export { listGrammar } from './list-grammar.js'

export { type StreamTextOptions, streamText } from './text.js'
