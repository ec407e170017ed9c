import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  DecoderLM,
  DisposedError,
  keepAlive,
  type Module,
  memoryStats,
  NativeModule,
  noGrad,
  Roberta,
  scope,
  type Tensor,
  tensor,
  WavLM,
  Whisper,
} from '../../lib/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { camelKeys, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  halved: string
}
const file = await fixture<Case>('models/hooks')
const classes = { roberta: Roberta, wavlm: WavLM, 'wavlm-norm-first': WavLM, llama: DecoderLM, whisper: Whisper }
type Network = NativeModule & { forward(inputs: object): Promise<Record<string, unknown>> }

function build({ name, config }: Case): Network {
  const Network = classes[name as keyof typeof classes] as unknown as { new (config: object): Network }
  const model = new Network(camelKeys(config))
  loadParameters(model, file, name)
  return model.eval()
}
const inputsOf = (name: string) => camelKeys(tensorsOf(file, name, 'in'))
const caseOf = (name: string) => file.cases.find((item) => item.name === name) as Case
const resultOf = (output: Record<string, unknown>) => (output.logits ?? output.lastHiddenState) as Tensor

/** A part of a network, which transformers' name leads to. */
const blockOf = (model: Module, name: string): NativeModule => {
  const block = model.get(name)
  expect(block, name).toBeInstanceOf(NativeModule)
  return block as NativeModule
}

describe.each(file.cases)('$name', (item) => {
  // Here the convolutions' frames come with time first, as the projection reads them.
  const asTheirs = (name: string, ours: Tensor, theirs: Tensor): Tensor => {
    if (name === 'feature_extractor') return ours.transpose(1, 2)
    // One row of positions or types stands for all where all are the same.
    return /(position|token_type)_embeddings|embed_positions/.test(name) ? ours.expand(theirs.shape) : ours
  }
  const expected = tensorsOf(file, item.name, 'seen')
  const { plain, halved } = tensorsOf(file, item.name, 'result') as { plain: Tensor; halved: Tensor }

  it('shows each block the output that transformers gives it', async () => {
    const model = build(item)
    for (const [name, theirs] of Object.entries(expected)) {
      const seen: Tensor[] = []
      const remove = blockOf(model, name).registerForwardHook(
        (_, __, output) => void seen.push(keepAlive(output as Tensor)),
      )
      await scope(async () => {
        const output = resultOf(await noGrad(() => model.forward(inputsOf(item.name))))
        expectClose(output, plain, 1e-5, `${name}: result`)
      })
      remove()
      expect(seen.length, name).toBe(1)
      expectClose(asTheirs(name, seen[0] as Tensor, theirs), theirs, 1e-5, name)
    }
    model.dispose()
  })

  it('shows all of them at once while gradients are recorded', async () => {
    const model = build(item)
    const seen: Record<string, Tensor> = {}
    for (const name of Object.keys(expected)) {
      blockOf(model, name).registerForwardHook((_, __, output) => void (seen[name] = keepAlive(output as Tensor)))
    }
    await scope(async () => {
      const output = resultOf(await model.forward(inputsOf(item.name)))
      expectClose(output, plain)
      await output.square().mean().backward()
    })
    expect(Object.keys(seen).sort()).toEqual(Object.keys(expected).sort())
    for (const [name, theirs] of Object.entries(expected)) {
      expectClose(asTheirs(name, seen[name] as Tensor, theirs), theirs, 1e-5, name)
    }
    model.dispose()
  })

  it('goes on with what a hook returns, and gradients flow through it', async () => {
    const model = build(item)
    blockOf(model, item.halved).registerForwardHook((_, __, output) => (output as Tensor).mul(0.5))
    const output = resultOf(await model.forward(inputsOf(item.name)))
    expectClose(output, halved)
    await output.square().mean().backward()
    const gradients = Object.entries(tensorsOf(file, item.name, 'grad'))
    expect(gradients.length).toBeGreaterThan(0)
    const parameters = Object.fromEntries(model.namedParameters())
    for (const [name, gradient] of gradients) expectClose(parameters[name]?.grad as Tensor, gradient, 1e-5, name)
    model.dispose()
  })
})

describe('a hook on a part of a network', () => {
  const run = (model: Network) => scope(async () => keepAlive(resultOf(await model.forward(inputsOf('roberta')))))

  it('gets the input and the output; several run in order, each on what the one before left', async () => {
    const model = build(caseOf('roberta'))
    const dense = blockOf(model, 'encoder.layer.1.output.dense')
    const calls: [string, number[][]][] = []
    const shapes = (args: unknown[], output: unknown) => [...args, output].map((value) => (value as Tensor).shape)
    const first = dense.registerForwardHook((module, args, output) => {
      expect(module).toBe(dense)
      calls.push(['first', shapes(args, output)])
      return (output as Tensor).mul(0)
    })
    dense.registerForwardHook((_, args, output) => {
      calls.push(['second', shapes(args, output)])
      expect((output as Tensor).abs().max().item()).toBe(0)
    })
    const changed = await run(model)
    const both = [
      [2, 5, 12],
      [2, 5, 8],
    ]
    expect(calls).toEqual([['first', both], ['second', both]]) // biome-ignore format: one line
    first()
    first()
    await expect(run(model)).rejects.toThrow(/to be \+?0|expected/)
    const { plain } = tensorsOf(file, 'roberta', 'result') as { plain: Tensor }
    expect(changed.sub(plain).abs().max().item()).toBeGreaterThan(0.01)
    model.dispose()
  })

  it('leaves the network as it was when it is removed, and no tensors', async () => {
    const model = build(caseOf('roberta'))
    const { plain } = tensorsOf(file, 'roberta', 'result') as { plain: Tensor }
    const before = await settledTensors()
    const remove = blockOf(model, 'encoder.layer.0').registerForwardHook((_, __, output) => (output as Tensor).neg())
    for (let i = 0; i < 3; i++) (await run(model)).dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    remove()
    expectClose(await run(model), plain)
    model.dispose()
  })

  it('does not keep a network that nobody has any more', async () => {
    const before = await settledTensors()
    for (let i = 0; i < 3; i++) {
      const model = build(caseOf('roberta'))
      blockOf(model, 'encoder.layer.0').registerForwardHook(() => void model.training)
      ;(await run(model)).dispose()
    }
    await expect.poll(settledTensors, { timeout: PATIENCE }).toBeLessThanOrEqual(before)
  })

  it('that throws, or gives no tensor or a promise, fails the pass with its error, and the network goes on', async () => {
    const model = build(caseOf('roberta'))
    const layer = blockOf(model, 'encoder.layer.0')
    const failing = async (hook: () => unknown) => {
      const remove = layer.registerForwardHook(hook)
      const error = await run(model).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      remove()
      return error
    }
    const own = new RangeError('no more')
    const thrower = () => {
      throw own
    }
    expect(await failing(thrower)).toBe(own)
    expect(await failing(async () => undefined)).toBeInstanceOf(ConfigError)
    const wrong = await failing(() => 7)
    expect(wrong).toBeInstanceOf(ConfigError)
    expect((wrong as Error).message).toMatch(/expected the hook .*to return a Tensor or undefined, got 7/)
    expect(await failing(() => tensor([1, 2, 3]))).toBeInstanceOf(Error)
    expectClose(await run(model), tensorsOf(file, 'roberta', 'result').plain as Tensor)
    model.dispose()
  })

  it('is refused where there is no output of its own, or what is given is no function', () => {
    const model = build(caseOf('roberta'))
    expect(() => blockOf(model, 'encoder.layer').registerForwardHook(() => {})).toThrow(ConfigError)
    expect(() => blockOf(model, 'encoder.layer').registerForwardHook(() => {})).toThrow(
      /registerForwardHook: expected a block with an output of its own, got a ModuleList\. Hook its parts: 0, 1/,
    )
    expect(() => blockOf(model, 'encoder').registerForwardHook(3 as never)).toThrow(ConfigError)
    const gone = blockOf(model, 'encoder')
    const remove = gone.registerForwardHook(() => {})
    model.dispose()
    remove()
    expect(() => gone.registerForwardHook(() => {})).toThrow(DisposedError)
  })

  it('runs at each step of a generation, and can steer it', async () => {
    const model = build(caseOf('llama')) as unknown as DecoderLM
    const inputIds = tensor([[3, 4, 5]])
    const plain = await model.generate({ inputIds }, { maxNewTokens: 4 })
    let calls = 0
    const only = tensor(
      Array.from({ length: 20 }, (_, i) => (i === 7 ? 100 : 0)),
      { dtype: 'float32' },
    )
    const remove = blockOf(model as unknown as Network, 'lm_head').registerForwardHook((_, __, output) => {
      calls++
      return (output as Tensor).add(only)
    })
    const steered = await model.generate({ inputIds }, { maxNewTokens: 4 })
    expect(steered.sequences.toArray()).toEqual([[3, 4, 5, 7, 7, 7, 7]])
    expect(calls).toBe(4)
    remove()
    const again = await model.generate({ inputIds }, { maxNewTokens: 4 })
    expect(again.sequences.toArray()).toEqual(plain.sequences.toArray())
    model.dispose()
  })

  it('runs again in backward where a layer is computed again', async () => {
    const model = build(caseOf('roberta')).train()
    model.gradientCheckpointing(true)
    let calls = 0
    blockOf(model, 'encoder.layer.1.attention').registerForwardHook(() => void calls++)
    await scope(async () => {
      const output = resultOf(await model.forward(inputsOf('roberta')))
      expect(calls).toBe(1)
      await output.sum().backward()
      expect(calls).toBe(2)
    })
    model.dispose()
  })
})
