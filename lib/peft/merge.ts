import { noGrad, type Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import type { LoraLayer } from './layer.js'

/** Original weights of layers with merged adapters, since W + BA - BA is not exactly W. */
export class MergedWeights {
  readonly #originals = new Map<LoraLayer, Tensor>()

  get any(): boolean {
    return this.#originals.size > 0
  }

  /** Merge adapters into all layers, or into none if one fails. */
  merge(layers: LoraLayer[], names: readonly string[]): void {
    try {
      for (const layer of layers) {
        if (!names.some((name) => layer.has(name))) continue
        const merged = layer.merged(names)
        try {
          const original = keepForever(noGrad(() => layer.weight.clone()))
          this.#originals.set(layer, original)
          noGrad(() => layer.weight.copy_(merged))
        } finally {
          merged.dispose()
        }
      }
    } catch (error) {
      this.restore()
      throw error
    }
  }

  restore(): void {
    // Restore in reverse order: two layers may share one weight.
    for (const [layer, original] of [...this.#originals].reverse()) {
      noGrad(() => layer.weight.copy_(original))
      original.dispose()
      this.#originals.delete(layer)
    }
  }

  /** Keep the merged weights for good. */
  forget(): void {
    for (const original of this.#originals.values()) original.dispose()
    this.#originals.clear()
  }
}
