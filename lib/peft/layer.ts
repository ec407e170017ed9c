import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { Conv1d } from '../nn/conv.js'
import { Embedding } from '../nn/embedding.js'
import type { LayerAdapters, Module } from '../nn/module.js'
import { NativeModule, withActiveAdapters } from '../nn/native-module.js'
import { Parameter } from '../nn/parameter.js'
import { packingArguments, type QuantizedWeight, quantizationOf } from '../nn/quantized-weight.js'
import { type DType, empty, keepForever, noGrad, ops, scope, type Tensor, tensor } from '../tensor/index.js'
import type { ResolvedLoraConfig } from './config.js'
import { valuesOf } from './packed-layer.js'
import { addProduct, initialize, principal, takesFromWeight } from './start.js'
import type { LayerKind, Target } from './targets.js'
import type { TokenRows } from './tokens.js'

const adaptedLinear = op('voxtorch::adapted_linear')
const adaptedQuantized = op('voxtorch::adapted_quantized_linear')
const adaptedConv1d = op('voxtorch::adapted_conv1d')
const adaptedEmbedding = op('voxtorch::adapted_embedding')
const attach = op('voxtorch::module_attach_adapter')

/** The adapter of one layer. Shapes by kind of layer: */
export interface Lora {
  /** linear [r, in], conv1d [r, in, kernel], embedding [r, count] */
  A: Parameter
  /** linear [out, r], conv1d [out, r, 1], embedding [dim, r] */
  B: Parameter
  /** DoRA's: linear [out], conv1d [1, out, 1], embedding [dim] */
  magnitude: Parameter | null
  scaling: number
  dropout: number
  /** What the layer's weight lost when the adapter was made. */
  taken?: { A: Tensor; B: Tensor }
}

/** What the operators take: for rows of the weight their numbers and values, as A and B. */
type Added = Omit<Lora, 'A' | 'taken'> & { A: Tensor }

/** What the patterns of a configuration say of one layer. */
export interface Size {
  r: number
  alpha: number
}

/** A layer with its adapters by name. A layer written in TypeScript computes through it, a native one through its slot. */
export class LoraLayer implements LayerAdapters {
  readonly path: string
  readonly module: Module
  readonly kind: LayerKind
  readonly adapters = new Map<string, Lora>()
  /** By the names of adapters that have no low-rank part here. */
  readonly tokens = new Map<string, TokenRows>()
  /** The names that are active where the call is made. */
  readonly #active: () => readonly string[]
  readonly #scale: () => number

  /** @param scale what the adapters' outputs are multiplied by where the call is made */
  constructor(target: Target, active: () => readonly string[], scale: () => number) {
    this.path = target.path
    this.module = target.module
    this.kind = target.kind
    this.#active = active
    this.#scale = scale
    requireSimple(target)
  }

  get weight(): Parameter {
    return Reflect.get(this.module, 'weight') as Parameter
  }

  /** Where the weight is packed. */
  get quantized(): QuantizedWeight | undefined {
    return quantizationOf(this.module)
  }

  get bias(): Parameter | null {
    return (Reflect.get(this.module, 'bias') as Parameter | null | undefined) ?? null
  }

  /**
   * Makes an adapter of rank `r`. Without `fresh` its values are whatever memory held: for weights that are about to
   * be loaded.
   */
  add(name: string, config: ResolvedLoraConfig, { r, alpha }: Size, nativeName: string, fresh: boolean): void {
    const { kind, weight, path } = this
    if (kind === 'embedding' && this.quantized) {
      throw new ConfigError(`'${path}' is packed, and packed embeddings take no adapter; leave it out`, { path })
    }
    const { shape, dtype } = this.quantized ?? weight
    const [rows, columns, ...kernel] = shape as [number, number, ...number[]]
    const shapes =
      kind === 'embedding'
        ? [
            [r, rows],
            [columns, r],
          ]
        : [
            [r, columns, ...kernel],
            [rows, r, ...kernel.map(() => 1)],
          ]
    const make = (shape: number[]) =>
      scope(() => new Parameter(empty(shape, { dtype: trained(dtype), device: weight.device })))
    const lora: Lora = {
      A: make(shapes[0]!),
      B: make(shapes[1]!),
      magnitude: null,
      scaling: config.useRslora ? alpha / Math.sqrt(r) : alpha / r,
      dropout: config.loraDropout,
    }
    if (takesFromWeight(config.initLoraWeights, kind)) this.#take(lora, r, config.initLoraWeights)
    else if (fresh) initialize(lora, kind, r, config.initLoraWeights)
    if (config.useDora) lora.magnitude = scope(() => new Parameter(this.#norm(lora)))
    this.adapters.set(name, lora)
    if (!(this.module instanceof NativeModule)) return
    attach(withActiveAdapters(this.module), nativeName, lora.A, lora.B, lora.magnitude, lora.scaling, lora.dropout)
  }

  /** Makes rows that train, with the weight's values, or those of another layer to follow. */
  addTokens(name: string, ids: readonly number[], nativeName: string, source?: Parameter): void {
    const { weight, module } = this
    const indices = keepForever(scope(() => tensor([...ids], { dtype: 'int64', device: weight.device })))
    const rows = () =>
      noGrad(() =>
        weight
          .detach()
          .indexSelect(0, indices)
          .to({ dtype: trained(weight.dtype) }),
      )
    const delta = source ?? scope(() => new Parameter(rows()))
    this.tokens.set(name, { indices, delta, follows: source !== undefined })
    if (module instanceof NativeModule) attach(withActiveAdapters(module), nativeName, indices, delta, null, 1, 0)
  }

  has(name: string): boolean {
    return this.adapters.has(name) || this.tokens.has(name)
  }

  /** Frees an adapter, and gives the weight back what it took. */
  remove(name: string): void {
    this.giveBack(name)
    for (const [, parameter] of this.parametersOf(name, (part) => part)) parameter.dispose()
    this.tokens.get(name)?.indices.dispose()
    this.tokens.delete(name)
    this.adapters.delete(name)
  }

  /** Moves the principal part of the weight into an adapter. */
  #take(lora: Lora, r: number, start: ResolvedLoraConfig['initLoraWeights']): void {
    const { weight, path } = this
    if (this.kind !== 'linear' || this.quantized) {
      const what = this.quantized ? 'packed layer; attach the adapter before quantize()' : 'Conv1d'
      throw new ConfigError(`initLoraWeights '${start}' is for Linear, and '${path}' is a ${what}`, { path })
    }
    noGrad(() =>
      scope(() => {
        const [A, B] = principal(weight.detach(), r, lora.scaling, start, path)
        addProduct(weight, A, B, -lora.scaling)
        lora.A.copy_(A)
        lora.B.copy_(B)
        lora.taken = { A: keepForever(lora.A.detach().clone()), B: keepForever(lora.B.detach().clone()) }
      }),
    )
  }

  /** Gives the weight back what an adapter took of it; with `keep` false only forgets what that was. */
  giveBack(name: string, keep = true): void {
    const lora = this.adapters.get(name)
    if (!lora?.taken) return
    const { A, B } = lora.taken
    if (keep) addProduct(this.weight, A, B, lora.scaling)
    A.dispose()
    B.dispose()
    delete lora.taken
  }

  /** The same adapter under another native name, with its output multiplied: for calls of a native layer. */
  attachScaled(name: string, nativeName: string, factor: number): void {
    if (!(this.module instanceof NativeModule)) return
    const rows = this.tokens.get(name)
    if (rows) attach(withActiveAdapters(this.module), nativeName, rows.indices, rows.delta, null, factor, 0)
    const lora = this.adapters.get(name)
    if (lora)
      attach(
        withActiveAdapters(this.module),
        nativeName,
        lora.A,
        lora.B,
        lora.magnitude,
        lora.scaling * factor,
        lora.dropout,
      )
  }

  /** Of every adapter, as peft names them. */
  namedParameters(): [string, Parameter][] {
    return [...this.adapters.keys(), ...this.tokens.keys()].flatMap((name) =>
      this.parametersOf(name, (part, end) => `${part}.${name}${end}`),
    )
  }

  /** Of one adapter, under the names that `title` makes of a part and what peft puts after the adapter's name. */
  parametersOf(name: string, title: (part: string, end: string) => string): [string, Parameter][] {
    const rows = this.tokens.get(name)
    if (rows && !rows.follows) return [[title('token_adapter.trainable_tokens_delta', ''), rows.delta]]
    const lora = this.adapters.get(name)
    if (!lora) return []
    const [prefix, end] = this.kind === 'embedding' ? ['lora_embedding_', ''] : ['lora_', '.weight']
    const named: [string, Parameter][] = [
      [title(`${prefix}A`, end), lora.A],
      [title(`${prefix}B`, end), lora.B],
    ]
    if (lora.magnitude) named.push([title('lora_magnitude_vector', '.weight'), lora.magnitude])
    return named
  }

  /** The output of a layer that is written in TypeScript. */
  forward(input: Tensor): Tensor | undefined {
    const active = this.#active().flatMap((name): Added[] => {
      const rows = this.tokens.get(name)
      if (rows) return [{ A: rows.indices, B: rows.delta, magnitude: null, scaling: 1, dropout: 0 }]
      return [this.adapters.get(name) ?? []].flat()
    })
    const first = active[0]
    if (first === undefined || this.module instanceof NativeModule) return undefined
    const A = active.map((lora) => lora.A)
    const B = active.map((lora) => lora.B)
    const scale = this.#scale()
    const scaling = active.map((lora) => lora.scaling * scale)
    const { weight, bias, module } = this
    const { magnitude, dropout } = first
    if (module instanceof Embedding) {
      return adaptedEmbedding(weight, input, A, B, scaling, { paddingIdx: module.paddingIdx ?? -1, magnitude })
    }
    const options = { magnitude, dropout, training: module.training }
    if (module instanceof Conv1d) {
      const [stride, dilation] = [module.stride[0], module.dilation[0]]
      return adaptedConv1d(input, weight, bias, A, B, scaling, {
        stride,
        padding: padding(module),
        dilation,
        ...options,
      })
    }
    const { quantized } = this
    if (!quantized) return adaptedLinear(input, weight, bias, A, B, scaling, options)
    const { codes, absmax, shape } = quantized
    const how = { ...packingArguments(quantized), ...options }
    return adaptedQuantized(input, codes, absmax ?? null, shape, bias, A, B, scaling, how)
  }

  /** The weight with adapters in it, a fresh tensor in the weight's dtype. */
  merged(names: readonly string[]): Tensor {
    return scope(() =>
      noGrad(() => {
        const base = this.#values()
        let weight = base
        for (const name of names) {
          const rows = this.tokens.get(name)
          if (rows)
            weight = weight.indexCopy(
              0,
              rows.indices.to({ device: weight.device }),
              rows.delta.to({ dtype: weight.dtype }),
            )
          const lora = this.adapters.get(name)
          if (!lora) continue
          weight = weight.add(this.#delta(lora, base.shape))
          if (!lora.magnitude) continue
          const ratio = lora.magnitude.div(this.#norm(lora)).flatten()
          weight = weight.mul(
            this.kind === 'embedding' ? ratio : ratio.reshape([-1, ...weight.shape.slice(1).map(() => 1)]),
          )
        }
        return weight === this.weight ? weight.clone() : weight.to({ dtype: base.dtype })
      }),
    )
  }

  /** The weight as numbers: a fresh tensor where it is packed. */
  #values(): Tensor {
    const { quantized } = this
    return quantized ? valuesOf(quantized, quantized.dtype) : this.weight
  }

  /** scaling · B A in the shape of the weight. */
  #delta({ A, B, scaling }: Lora, shape: number[]): Tensor {
    const product = ops.mm(B.flatten(1), A.flatten(1)).mul(scaling)
    return this.kind === 'embedding' ? product.t() : product.reshape(shape)
  }

  /** The norm of each output's weights with the adapter in, in the shape of DoRA's magnitude. */
  #norm(lora: Lora): Tensor {
    const { kind } = this
    return scope(() =>
      noGrad(() => {
        const weight = this.#values()
        const sum = weight.add(this.#delta(lora, weight.shape))
        const norm = ops.linalgVectorNorm(kind === 'embedding' ? sum.t() : sum.flatten(1), 2, [1])
        return (kind === 'conv1d' ? norm.reshape([1, -1, 1]) : norm).to({ dtype: trained(weight.dtype) })
      }),
    )
  }
}

/** Adapters of a network in half precision train in float32, as peft's do. */
const trained = (dtype: DType): DType => (dtype === 'bfloat16' || dtype === 'float16' ? 'float32' : dtype)

function requireSimple({ module, path }: Target): void {
  if (!(module instanceof Conv1d)) return
  const fail = (what: string) => new ConfigError(`'${path}' cannot have an adapter: ${what}; take it out`, { path })
  if (module.groups !== 1) throw fail(`it has ${module.groups} groups`)
  if (module.paddingMode !== 'zeros') throw fail(`its paddingMode is '${module.paddingMode}'`)
  if (!Number.isInteger(padding(module))) throw fail("padding 'same' is uneven with its kernel")
}

/** Zeros on each side. */
function padding({ padding, kernelSize, dilation }: Conv1d): number {
  if (padding === 'valid') return 0
  return padding === 'same' ? ((kernelSize[0]! - 1) * dilation[0]!) / 2 : padding[0]!
}
