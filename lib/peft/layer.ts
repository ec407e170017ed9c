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

/** Adapter of one layer. Shapes by kind of layer: */
export interface Lora {
  /** Linear [r, in], conv1d [r, in, kernel], embedding [r, count]. */
  A: Parameter
  /** Linear [out, r], conv1d [out, r, 1], embedding [dim, r]. */
  B: Parameter
  /** Magnitude of DoRA: linear [out], conv1d [1, out, 1], embedding [dim]. */
  magnitude: Parameter | null
  scaling: number
  dropout: number
  /** Principal part that was subtracted from the layer's weight when the adapter was created. */
  taken?: { A: Tensor; B: Tensor }
}

/** Adapter in the form of the operators: for trained rows of the weight, their indices and values as A and B. */
type Added = Omit<Lora, 'A' | 'taken'> & { A: Tensor }

/** Rank and alpha of one layer, after applying the patterns of a configuration. */
export interface Size {
  r: number
  alpha: number
}

/** A layer with its adapters by name. A TypeScript layer computes through it, a native layer through its slot. */
export class LoraLayer implements LayerAdapters {
  readonly path: string
  readonly module: Module
  readonly kind: LayerKind
  readonly adapters = new Map<string, Lora>()
  /** Trained rows, by the names of adapters without a low-rank part here. */
  readonly tokens = new Map<string, TokenRows>()
  /** Return the names that are active in the current context. */
  readonly #active: () => readonly string[]
  readonly #scale: () => number

  /** @param scale returns the factor on the adapters' outputs in the current context */
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

  /** Quantized weight, if the layer has one. */
  get quantized(): QuantizedWeight | undefined {
    return quantizationOf(this.module)
  }

  get bias(): Parameter | null {
    return (Reflect.get(this.module, 'bias') as Parameter | null | undefined) ?? null
  }

  /** Add an adapter of rank `r`. Without `fresh` its values are uninitialized memory, for weights that will be loaded. */
  add(name: string, config: ResolvedLoraConfig, { r, alpha }: Size, nativeName: string, fresh: boolean): void {
    const { kind, weight, path } = this
    if (kind === 'embedding' && this.quantized) {
      throw new ConfigError(
        `LoraConfig.targetModules: expected layers that can have an adapter, got the quantized embeddings '${path}'. Leave them out`,
        { path },
      )
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

  /** Add trained rows, with the weight's values, or sharing those of another layer. */
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

  /** Free an adapter, and restore the part of the weight that it took. */
  remove(name: string): void {
    this.giveBack(name)
    for (const [, parameter] of this.parametersOf(name, (part) => part)) parameter.dispose()
    this.tokens.get(name)?.indices.dispose()
    this.tokens.delete(name)
    this.adapters.delete(name)
  }

  /** Move the principal part of the weight into an adapter. */
  #take(lora: Lora, r: number, start: ResolvedLoraConfig['initLoraWeights']): void {
    const { weight, path } = this
    if (this.kind !== 'linear' || this.quantized) {
      const what = this.quantized ? 'quantized layer. Attach the adapter before quantize()' : 'Conv1d'
      throw new ConfigError(
        `LoraConfig.initLoraWeights: expected a Linear for '${start}', but '${path}' is a ${what}`,
        { path },
      )
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

  /** Add back the part of the weight that an adapter took; with `keep` false only forget it. */
  giveBack(name: string, keep = true): void {
    const lora = this.adapters.get(name)
    if (!lora?.taken) return
    const { A, B } = lora.taken
    if (keep) addProduct(this.weight, A, B, lora.scaling)
    A.dispose()
    B.dispose()
    delete lora.taken
  }

  /** Attach the adapter under another native name with a factor on its output, for calls of a native layer. */
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

  /** Return the parameters of every adapter, with peft's names. */
  namedParameters(): [string, Parameter][] {
    return [...this.adapters.keys(), ...this.tokens.keys()].flatMap((name) =>
      this.parametersOf(name, (part, end) => `${part}.${name}${end}`),
    )
  }

  /**
   * Return the parameters of one adapter. `title` builds a name from a part and the suffix that peft puts after the adapter's
   * name.
   */
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

  /** Compute the output of a TypeScript layer. */
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

  /** Return the weight with merged adapters, a new tensor in the weight's dtype. */
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

  /** Return the weight in floating point: a new tensor if it is quantized. */
  #values(): Tensor {
    const { quantized } = this
    return quantized ? valuesOf(quantized, quantized.dtype) : this.weight
  }

  /** Return scaling · B A in the shape of the weight. */
  #delta({ A, B, scaling }: Lora, shape: number[]): Tensor {
    const product = ops.mm(B.flatten(1), A.flatten(1)).mul(scaling)
    return this.kind === 'embedding' ? product.t() : product.reshape(shape)
  }

  /** Return the norm of each output's merged weights, in the shape of DoRA's magnitude. */
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

/** Return the dtype of an adapter: float32 for a network in half precision, as in peft. */
const trained = (dtype: DType): DType => (dtype === 'bfloat16' || dtype === 'float16' ? 'float32' : dtype)

function requireSimple({ module, path }: Target): void {
  if (!(module instanceof Conv1d)) return
  const fail = (what: string) =>
    new ConfigError(
      `LoraConfig.targetModules: expected layers that can have an adapter, but '${path}' ${what}. Leave it out`,
      { path },
    )
  if (module.groups !== 1) throw fail(`has ${module.groups} groups`)
  if (module.paddingMode !== 'zeros') throw fail(`has paddingMode '${module.paddingMode}'`)
  if (!Number.isInteger(padding(module))) throw fail("has asymmetric padding 'same'")
}

/** Return the padding on each side. */
function padding({ padding, kernelSize, dilation }: Conv1d): number {
  if (padding === 'valid') return 0
  return padding === 'same' ? ((kernelSize[0]! - 1) * dilation[0]!) / 2 : padding[0]!
}
