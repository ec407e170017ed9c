import type { Module } from '../nn/module.js'
import type { NativeModule } from '../nn/native-module.js'
import { type OutputLayer, outputLayerOf, tieHead, untieHead } from '../nn/output-layer.js'
import { Parameter } from '../nn/parameter.js'
import { joined } from '../nn/text.js'
import type { Tensor } from '../tensor/index.js'
import type { ResolvedLoraConfig } from './config.js'
import type { LoraLayer } from './layer.js'
import { headsToUntie } from './targets.js'
import { headsOfTokens } from './tokens.js'

/** Language models below a model whose output layer was tied to the embeddings until an adapter required separate weights. */
export class UntiedHeads {
  readonly #model: Module
  readonly #networks = new Set<NativeModule>()

  constructor(model: Module) {
    this.#model = model
  }

  /** Untie the output layers that an adapter requires untied; returns a function that reverts that. */
  untieFor(config: ResolvedLoraConfig): () => void {
    const networks = new Set([...headsToUntie(this.#model, config), ...headsOfTokens(this.#model, config)])
    for (const network of networks) this.#untie(network)
    return () => {
      for (const network of networks) {
        tieHead(network)
        this.#networks.delete(network)
      }
    }
  }

  /** Untie before adapters of embeddings are merged, since the merged values must not affect the output layer. */
  untieMerged(layers: readonly LoraLayer[]): void {
    for (const [path, network] of this.#model.namedModules()) {
      const output = outputLayerOf(network)
      if (!output?.tied) continue
      const embeddings = joined(path, output.embeddings)
      if (layers.some((layer) => layer.path === embeddings)) this.#untie(network as NativeModule)
    }
  }

  tie(): void {
    for (const network of this.#networks) tieHead(network)
    this.#networks.clear()
  }

  /** Tie again the output layers that still equal the embeddings, as after both got the same rows. */
  tieEqual(): void {
    for (const network of this.#networks) {
      const { head, embeddings } = outputLayerOf(network) as OutputLayer
      const [output, input] = [head, embeddings].map((path) => Reflect.get(network.get(path), 'weight') as Tensor)
      if (!output?.equal(input as Tensor)) continue
      tieHead(network)
      this.#networks.delete(network)
    }
  }

  #untie(network: NativeModule): void {
    untieHead(network)
    this.#networks.add(network)
  }
}

/** Return the weights of an adapter's embeddings and output layers, which peft writes into some files, by their names there. */
export function embeddingWeights(model: Module, layers: readonly LoraLayer[]): Record<string, Tensor> {
  const heads = outputs(model).map(([path, , head]) => joined(path, head))
  const known = layers.filter(({ path, kind }) => kind === 'embedding' || heads.includes(path))
  return Object.fromEntries(known.map(({ path, weight }) => [`base_model.model.${path}.base_layer.weight`, weight]))
}

/** Return the biases that an output layer shares with its parent module; peft writes them under both names. */
export function sharedBiases(model: Module): [string, Parameter][] {
  return outputs(model).flatMap(([path, network, head]): [string, Parameter][] => {
    const around = head.split('.').slice(0, -1).join('.')
    const bias: unknown = around === '' ? undefined : Reflect.get(network.get(around), 'bias')
    return bias instanceof Parameter ? [[joined(path, head), bias]] : []
  })
}

const outputs = (model: Module): [string, Module, string][] =>
  model.namedModules().flatMap(([path, network]): [string, Module, string][] => {
    const layer = outputLayerOf(network)
    return layer ? [[path, network, layer.head]] : []
  })
