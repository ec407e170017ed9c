import { noGrad, type Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import type { LoraLayer } from './layer.js'

/** The weights of layers whose adapters are merged, as they were before: W + BA - BA is not W. */
export class MergedWeights {
  readonly #originals = new Map<LoraLayer, Tensor>()

  get any(): boolean {
    return this.#originals.size > 0
  }

  /** All layers or none. */
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
    // Backwards: two layers may have one weight.
    for (const [layer, original] of [...this.#originals].reverse()) {
      noGrad(() => layer.weight.copy_(original))
      original.dispose()
      this.#originals.delete(layer)
    }
  }

  /** The merged weights stay. */
  forget(): void {
    for (const original of this.#originals.values()) original.dispose()
    this.#originals.clear()
  }
}
