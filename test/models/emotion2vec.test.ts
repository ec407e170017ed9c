import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  AdamW,
  Emotion2Vec,
  manualSeed,
  noGrad,
  type Parameter,
  pipeline,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import type { Emotion2VecConfig } from '../../lib/models/emotion2vec/emotion2vec.js'
import { convertedConfig, networkName } from '../../lib/models/emotion2vec/funasr.js'
import { expectClose, fixture, fixturePath, tensorsOf } from '../helpers.js'
import { expectGradients } from './networks.js'

interface Case {
  name: string
  config: { depth: number; modalities: { audio: { prenet_depth: number } } }
  labels: number
  lengths: number[]
}
const file = await fixture<Case>('models/emotion2vec')
const tiny = fixturePath('models/emotion2vec-tiny')
const LABELS = ['生气/angry', 'unuse_0', '开心/happy', '<unk>']
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion2vec-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A copy of the published layout, with changes to config.yaml. */
function copyOf(name: string, change: (yaml: string) => string = (yaml) => yaml): string {
  const at = join(folder, name)
  cpSync(tiny, at, { recursive: true })
  writeFileSync(join(at, 'config.yaml'), change(readFileSync(join(at, 'config.yaml'), 'utf8')))
  return at
}

/** Names of the published files as the network's. */
const renamedTensors = ({ config }: Case, tensors: Record<string, Tensor>) =>
  Object.fromEntries(
    Object.entries(tensors).map(([key, value]) => [networkName(key, config.modalities.audio.prenet_depth), value]),
  )

function networkOf(one: Case): Emotion2Vec {
  const { config } = convertedConfig('config.yaml', { model_conf: one.config })
  const model = new Emotion2Vec({ ...config, numLabels: one.labels }).eval()
  const parameters = tensorsOf(file, one.name === 'batch' ? 'plus' : one.name, 'param')
  noGrad(() => model.loadStateDict(renamedTensors(one, parameters)))
  return model
}

function renamedGradients(one: Case) {
  const gradients = Object.entries(renamedTensors(one, tensorsOf(file, one.name, 'grad')))
  return { ...file, tensors: Object.fromEntries(gradients.map(([key, value]) => [`${one.name}/grad/${key}`, value])) }
}

describe('Emotion2Vec against FunASR', () => {
  it.each(file.cases)('$name', async (one) => {
    const { name, labels, lengths } = one
    const model = networkOf(one)
    expect(model.config.numLabels).toBe(labels)
    const clips = Object.values(tensorsOf(file, name, 'in'))
    const inputs = await model.prepare(clips)
    const output = await model.forward({ ...inputs, outputHiddenStates: true })
    const expected = tensorsOf(file, name, 'out')
    const cotangents = tensorsOf(file, name, 'cotangent')
    const frames = model.featureLengths(lengths)
    let loss = tensor(0)
    for (const [i, length] of frames.entries()) {
      const row = (values: Tensor) => values.narrow(0, i, 1)
      const found: Record<string, Tensor> = {
        last: row(output.lastHiddenState).narrow(1, 0, length),
        pooled: row(output.poolerOutput),
      }
      for (const [j, states] of output.hiddenStates.entries()) found[`state${j}`] = row(states).narrow(1, 0, length)
      if (output.logits) found.logits = row(output.logits)
      expect(
        Object.keys(found)
          .map((key) => `${key}/${i}`)
          .sort(),
      ).toEqual(
        Object.keys(expected)
          .filter((key) => key.endsWith(`/${i}`))
          .sort(),
      )
      for (const [key, values] of Object.entries(found)) {
        expectClose(values, expected[`${key}/${i}`] as Tensor, 1e-5, `${name}: ${key} of clip ${i}`)
        const cotangent = cotangents[`${key}/${i}`]
        if (cotangent) loss = loss.add(values.mul(cotangent).sum())
      }
    }
    if (labels === 0) {
      expect(output.logits).toBeNull()
      await expect(model.forward({ ...inputs, labels: tensor([0n]) })).rejects.toThrow(/labels: expected none/)
      return
    }
    await loss.backward()
    await expectGradients(model, renamedGradients(one), name)
  })

  it('gives attentions of extra tokens and frames, each row with sum 1', async () => {
    const model = await Emotion2Vec.fromPretrained(tiny)
    const { attentions, lastHiddenState } = await model.forward({
      inputValues: randn([1, 300]),
      outputAttentions: true,
    })
    const tokens = lastHiddenState.size(1) + 3
    expect(attentions.map((one) => one.shape)).toEqual(Array(3).fill([1, 4, tokens, tokens]))
    expect(Number((attentions[0] as Tensor).sum([-1]).sub(1).abs().max().item())).toBeLessThan(1e-5)
  })

  it('computes the same with checkpointed layers', async () => {
    const model = (await Emotion2Vec.fromPretrained(tiny)).train()
    const inputValues = randn([1, 300])
    const gradientOf = async (enabled: boolean) => {
      model.gradientCheckpointing(enabled)
      manualSeed(3)
      for (const one of model.parameters()) one.grad = null
      const { logits } = await model.forward({ inputValues })
      await (logits as Tensor).square().sum().backward()
      const [, scale] = model.namedParameters().find(([name]) => name === 'encoder.alibi_scale') as [string, Parameter]
      return scale.grad as Tensor
    }
    expect((await gradientOf(true)).equal(await gradientOf(false))).toBe(true)
  })
})

describe('folders of FunASR', () => {
  it('are saved and loaded as config.json and safetensors', async () => {
    const model = await Emotion2Vec.fromPretrained(tiny)
    await model.save(join(folder, 'saved'))
    const again = await Emotion2Vec.fromPretrained(join(folder, 'saved'))
    expect(again.config.id2label).toEqual({ 0: LABELS[0], 1: LABELS[1], 2: LABELS[2], 3: LABELS[3] })
    const inputValues = randn([1, 300])
    const logits = (network: Emotion2Vec) => network.forward({ inputValues }).then((output) => output.logits as Tensor)
    expect((await logits(again)).equal(await logits(model))).toBe(true)
  })

  it.each([
    ['layer_norm_first: false', 'layer_norm_first: true', /config.yaml: layer_norm_first: expected false, got true/],
    ['extractor_mode: layer_norm', 'extractor_mode: default', /extractor_mode: expected "layer_norm", got "default"/],
    ['learned_alibi: false', 'learned_alibi: true', /learned_alibi: expected false, got true/],
    ['embed_dim: 16', 'embed_dim: -1', /embed_dim: expected an integer/],
    ['mlp_ratio: 2.0', 'mlp_ratio: many', /mlp_ratio: expected a number/],
    ['num_heads: 4', 'num_heads: 5', /num_attention_heads/],
    ['num_alibi_heads: 4', 'num_alibi_heads: 5', /num_alibi_heads/],
    ['conv_pos_depth: 3', 'conv_pos_depth: 0', /conv_pos_depth: expected at least 1/],
    ['modalities:', 'modality:', /model_conf.modalities: expected a mapping/],
    ['(8, 3, 2)', '(8, 3)', /config.yaml: feature_encoder_spec: expected lists/],
  ])('with %s changed are refused by name', async (from, to, message) => {
    const at = copyOf('changed', (yaml) => yaml.replaceAll(from, to))
    await expect(Emotion2Vec.fromPretrained(at)).rejects.toThrow(message)
  })

  it('with missing, unknown and mis-shaped tensors are refused by name', async () => {
    const changed = (name: string, from: string, to: string) =>
      Emotion2Vec.fromPretrained(copyOf(name, (yaml) => yaml.replace(from, to)))
    await expect(changed('missing', '\n  depth: 2', '\n  depth: 3')).rejects.toThrow(/encoder\.layers\.3\./)
    await expect(changed('unknown', '\n  depth: 2', '\n  depth: 1')).rejects.toThrow(/encoder\.layers\.2\./)
    await expect(changed('prenet', 'prenet_depth: 1', 'prenet_depth: 0')).rejects.toThrow(
      /context_encoder\.blocks\.0\./,
    )
    const shape = copyOf('shape')
    writeFileSync(join(shape, 'tokens.txt'), 'calm\nglad')
    await expect(Emotion2Vec.fromPretrained(shape)).rejects.toThrow(/classifier\.weight/)
  })

  it('warn of settings of training without effect', async () => {
    const warnings: string[] = []
    const listen = (warning: Error) => warnings.push(warning.message)
    process.on('warning', listen)
    await Emotion2Vec.fromPretrained(
      copyOf('warned', (yaml) => yaml.replace('dropout_input: 0.0', 'dropout_input: 0.5')),
    )
    await new Promise((resolve) => setImmediate(resolve))
    process.off('warning', listen)
    expect(warnings.join()).toMatch(/config.yaml: dropout_input 0.5 has no effect/)
  })
})

describe('Emotion2Vec', () => {
  const config: Emotion2VecConfig = {
    ...{ hiddenSize: 16, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 24, numExtraTokens: 2 },
    ...{ convDim: [8, 8], convKernel: [10, 3], convStride: [5, 2], numConvPosEmbeddingGroups: 4 },
    ...{ numConvPosEmbeddings: 2, convPosKernelSize: 3, id2label: { 0: 'calm', 1: 'glad' } },
  }

  it('has the number of parameters of the published base size', () => {
    const model = Emotion2Vec.fromConfig('base', { device: 'meta' })
    expect(model.parameters().reduce((sum, one) => sum + one.numel(), 0)).toBe(93_171_212)
  })

  it('trains a classifier over a frozen encoder', async () => {
    manualSeed(1)
    const model = new Emotion2Vec(config)
    for (const [name, parameter] of model.namedParameters()) parameter.requiresGrad = name.startsWith('classifier.')
    const optimizer = new AdamW(
      model.parameters().filter((one) => one.requiresGrad),
      { lr: 0.1 },
    )
    const clips = [randn([400]), randn([300]).cumsum(0)]
    const inputs = { ...(await model.prepare(clips)), labels: tensor([0n, 1n]) }
    model.eval()
    const losses: number[] = []
    for (let step = 0; step < 20; step++) {
      await scope(async () => {
        const { loss } = await model.forward(inputs)
        losses.push((loss as Tensor).item() as number)
        optimizer.zeroGrad()
        await (loss as Tensor).backward()
        await optimizer.step()
      })
    }
    expect(losses.at(-1)).toBeLessThan(0.2 * (losses[0] as number))
  })

  it('refuses contradictory configurations and inputs by name', async () => {
    expect(() => new Emotion2Vec({ ...config, numLabels: 3 })).toThrow(/numLabels: expected 2/)
    expect(() => new Emotion2Vec({ ...config, numAlibiHeads: 3 })).toThrow(/num_alibi_heads/)
    expect(() => new Emotion2Vec({ ...config, numExtraTokens: -1 })).toThrow(/num_extra_tokens/)
    expect(() => new Emotion2Vec({ ...config, postMlpDrop: 2 })).toThrow(/post_mlp_drop/)
    expect(() => new Emotion2Vec({ ...config, prenetDepth: 2 } as never)).toThrow(/prenetDepth/)
    const model = new Emotion2Vec(config)
    await expect(model.forward({ inputValues: randn([1, 5]) })).rejects.toThrow(/input_values/)
    await expect(model.prepare([randn([400])], { normalise: true } as never)).rejects.toThrow(/normalise/)
  })

  it('recognizes emotions in a pipeline, without the unused classes', async () => {
    using recognizer = await pipeline('emotion-recognition', tiny)
    const clip = tensorsOf(file, 'plus', 'in')['0'] as Tensor
    const samples = Float32Array.from((await clip.data()) as Float32Array)
    const found = await recognizer(samples)
    const logits = tensorsOf(file, 'plus', 'out')['logits/0'] as Tensor
    const used = [0, 2, 3]
    const expected = noGrad(
      () =>
        logits
          .select(0, 0)
          .indexSelect(0, tensor(used.map(BigInt)))
          .softmax(-1)
          .toArray() as number[],
    )
    expect(found.map(({ label }) => label).sort()).toEqual(used.map((i) => LABELS[i]).sort())
    for (const { label, score } of found) {
      expect(score).toBeCloseTo(expected[used.indexOf(LABELS.indexOf(label))] as number, 5)
    }
    expect(found[0]?.score).toBe(Math.max(...found.map(({ score }) => score)))
  })
})
