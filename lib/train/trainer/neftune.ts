import { ConfigError } from '../../base/errors.js'
import { Embedding, type Module } from '../../nn/index.js'
import { NativeModule, nativeKind } from '../../nn/native-module.js'
import { outputLayerOf } from '../../nn/output-layer.js'
import { scope, Tensor } from '../../tensor/index.js'

interface Words {
  embeddings: Module
  /** Factor by which the network multiplies the module's output; transformers' embeddings contain it. */
  scale: number
}

/**
 * Return the token embeddings of a model: those of the language model in it, or its only embeddings.
 * @throws ConfigError if there are none, or several
 */
export function tokenEmbeddingsOf(model: Module): Words {
  for (const module of model.modules()) {
    const layer = outputLayerOf(module)
    if (!layer) continue
    const { embeddingScale = 1 } = module as { embeddingScale?: number }
    return { embeddings: module.get(layer.embeddings), scale: embeddingScale }
  }
  const found = model.modules().filter(isEmbedding)
  if (found.length === 1) return { embeddings: found[0] as Module, scale: 1 }
  throw new ConfigError(
    `TrainingArguments.neftuneNoiseAlpha: expected a language model, or a model with one embedding layer, got ${model.constructor.name} with ${found.length}. Leave it out.`,
    { argument: 'neftuneNoiseAlpha' },
  )
}

const isEmbedding = (module: Module): boolean =>
  module instanceof NativeModule ? nativeKind(module) === 'Embedding' : module instanceof Embedding

/**
 * Add uniform noise from −α/√(time · dim) to α/√(time · dim) to the token embeddings [batch, time, dim] in training mode, as
 * transformers does. Returns a function that stops it.
 */
export function activateNeftune(model: Module, alpha: number): () => void {
  const { embeddings, scale } = tokenEmbeddingsOf(model)
  return embeddings.registerForwardHook((module, _, output) => {
    if (!module.training || !(output instanceof Tensor)) return undefined
    return scope(() => {
      const [time = 1, dim = 1] = output.shape.slice(-2)
      const most = alpha / Math.sqrt(time * dim) / scale
      return output.add(output.detach().zerosLike().uniform_(-most, most))
    })
  })
}
