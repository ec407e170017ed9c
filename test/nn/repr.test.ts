import { readFileSync } from 'node:fs'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import * as voxtorch from '../../lib/index.js'
import { Bert, Linear, Module, ModuleDict, ModuleList, NativeModule, ones, Parameter, ReLU, Sequential, Tanh } from '../../lib/index.js' // biome-ignore format: one line

interface Case {
  name: string
  args: unknown[]
  options: Record<string, unknown>
  text: string
}

const file = new URL('../fixtures/nn/repr.json', import.meta.url)
const cases = JSON.parse(readFileSync(file, 'utf8')) as Case[]

class Head extends Module {
  layers = new ModuleList([new Linear(2, 2), new Linear(2, 2), new Linear(2, 3), new Linear(3, 3)])
  by_name = new ModuleDict<Module>({ a: new Tanh(), b: new Sequential(new Linear(4, 8), new ReLU(), new Linear(8, 2)) })
  scale = new Parameter(ones([1]))
  override extraRepr(): string {
    return 'scale=1'
  }
}
class Bare extends Module {
  override extraRepr(): string {
    return 'a=1\nb=2'
  }
}
const own: Record<string, new () => Module> = { Head, Bare }

const camel = (options: Record<string, unknown>) =>
  Object.fromEntries(
    Object.entries(options).map(([key, value]) => [key.replace(/_(\w)/g, (_, c: string) => c.toUpperCase()), value]),
  )

describe("a module's text", () => {
  it.each(cases.map((one) => [`${one.name}(${JSON.stringify([...one.args, one.options])})`, one] as const))(
    "is PyTorch's: %s",
    (_, { name, args, options, text }) => {
      const kind = own[name] ?? (voxtorch as unknown as Record<string, new (...args: unknown[]) => Module>)[name]
      expect(kind, name).toBeDefined()
      const given = Object.keys(options).length > 0 ? [...args, camel(options)] : args
      using module = new (kind as new (...args: unknown[]) => Module)(...given)
      // The projection of an attention is an ordinary layer here.
      const expected = text.replaceAll('NonDynamicallyQuantizableLinear', 'Linear')
      expect(inspect(module)).toBe(expected)
      expect(`${module}`).toBe(expected)
    },
  )

  it('has the parts of a native network, with their sizes', () => {
    const size = { vocabSize: 11, hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 16 }
    const model = new Bert({ ...size, maxPositionEmbeddings: 6 })
    const text = inspect(model)
    expect(text).toContain('(word_embeddings): Embedding(11, 8)')
    expect(text).toContain('(layer): ModuleList(\n      (0-1): 2 x RobertaLayer(')
    expect(text).toContain('(query): Linear(in_features=8, out_features=8, bias=True)')
    expect(text.startsWith('Bert(\n  (embeddings): ')).toBe(true)
    expect(model.get('pooler')).toBeInstanceOf(NativeModule)
    model.dispose()
    expect(inspect(model)).toContain('Bert(')
  })

  it('never throws', () => {
    class Ring extends Module {
      self: Module = this
    }
    expect(inspect(new Ring())).toBe('Ring(\n  (self): Ring(...)\n)')
    expect(inspect(new Proxy(new Linear(1, 1), {}))).toMatch(/Linear/)
  })
})
