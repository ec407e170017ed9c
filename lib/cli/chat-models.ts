import type { ChatModelLoader } from '../serve/index.js'

/**
 * What `voxtorch serve` can serve, by name. A loader imports its system itself, so that the other commands do not load
 * libtorch.
 */
export const chatModels: Record<string, ChatModelLoader> = {}
