import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as voxtorch from '../../lib/index.js'
import { loadSafetensors, manualSeed, saveSafetensors, scope, type Tensor, zeros } from '../../lib/index.js'

type Config = Record<string, unknown>
type Network = new (config: Config, options?: object) => voxtorch.Module & { save(to: string): Promise<void> }

const trunk = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 }
const convolutions = { convDim: [8], convKernel: [10], convStride: [5], numConvPosEmbeddings: 4, numConvPosEmbeddingGroups: 2 } // biome-ignore format: one line
const waves = { ...trunk, ...convolutions, vocabSize: 12 }
const encoder = { ...trunk, convKernelSize: 3, subsamplingFactor: 4, subsamplingConvChannels: 4, numMelBins: 8 }
const transducer = { vocabSize: 12, blankTokenId: 11, padTokenId: 2, decoderHiddenSize: 8, numDecoderLayers: 1, encoderConfig: encoder } // biome-ignore format: one line
const image = { ...trunk, imageSize: 16, patchSize: 4 }
const moonshine = {
  ...{ vocabSize: 20, hiddenSize: 16, intermediateSize: 16, encoderNumHiddenLayers: 1, decoderNumHiddenLayers: 1 },
  ...{ encoderNumAttentionHeads: 2, partialRotaryFactor: 0.5, maxPositionEmbeddings: 16 },
}
const mimi = {
  ...{ samplingRate: 4000, hiddenSize: 16, numFilters: 4, upsamplingRatios: [2], codebookSize: 8, codebookDim: 8 },
  ...{ vectorQuantizationHiddenDimension: 8, numQuantizers: 2, upsampleGroups: 8, numHiddenLayers: 1, headDim: 8 },
  ...{ intermediateSize: 16, numAttentionHeads: 2, numKeyValueHeads: 2, slidingWindow: 4 },
}
const decoder = (modelType: string, more: Config = {}): Config => ({
  ...{ modelType, ...trunk, vocabSize: 24, numKeyValueHeads: 1, headDim: 8, maxPositionEmbeddings: 16, ...more },
})
const experts = { numExpertsPerTok: 1, moeIntermediateSize: 8 }
const gemma = { queryPreAttnScalar: 8, slidingWindow: 4 }
const text = decoder('llama')

const ear = { dModel: 16, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 16, numMelBins: 8, maxSourcePositions: 12 } // biome-ignore format: one line
const tower = { ...trunk, numMelBins: 8, maxSourcePositions: 12 }
const conformer = { inputDim: 16, numLayers: 2, hiddenDim: 16, numHeads: 2, outputDim: 8, contextSize: 5, maxPosEmb: 8, convKernelSize: 5 } // biome-ignore format: one line
const audioLMs: Record<string, [config: Config, text: string, wrong: [string, unknown, RegExp][]]> = {
  qwen2_audio: [{ audioConfig: ear }, 'qwen2', [['audioConfig.activationFunction', 'mish2', /gelu/]]],
  voxtral: [{ audioConfig: { ...tower, intermediateSize: 64 } }, 'llama', [['projectorHiddenAct', 'mish2', /gelu/]]],
  audioflamingo3: [{ audioConfig: tower }, 'qwen2', [['projectorHiddenAct', 'mish2', /gelu/]]],
  qwen3_asr: [{ audioConfig: { ...ear, maxSourcePositions: undefined, outputDim: 16, downsampleHiddenSize: 4 } }, 'qwen3', [['audioConfig.activationFunction', 'mish2', /gelu/]]], // biome-ignore format: one line
  glmasr: [{ audioConfig: { ...trunk, intermediateSize: 64, numMelBins: 8 } }, 'llama', [['audioConfig.hiddenAct', 'mish2', /gelu/], ['audioConfig.ropeParameters', { ropeType: 'spiral' }, /"default"/]]], // biome-ignore format: one line
  granite_speech: [{ encoderConfig: conformer, projectorConfig: { ...trunk, encoderHiddenSize: 16 }, windowSize: 6, downsampleRate: 2, hasLoraAdapter: false }, 'granite', [['projectorConfig.hiddenAct', 'mish2', /gelu/]]], // biome-ignore format: one line
  ultravox: [{ audioConfig: ear, hiddenSize: 16, stackFactor: 4 }, 'llama', [['projectorAct', 'mish2', /gelu/], ['llmOnlyTraining', true, /false/]]], // biome-ignore format: one line
}

/** An unknown value: the key, or the keys of a part and of the value; the value; and what the error says is supported. */
type Wrong = [path: string, value: unknown, supported: RegExp]
const act: Wrong = ['hiddenAct', 'mish2', /"gelu" or .*"silu"/]
const rope: Wrong = ['ropeParameters', { ropeType: 'spiral', factor: 2 }, /linear/]
const plainRope: Wrong = ['ropeParameters', { ropeType: 'spiral' }, /"default"/]
const layers: Wrong = ['layerTypes', ['linear_attention'], /'full_attention'/]
const speech: Wrong[] = [act, ['featExtractNorm', 'batch', /group.*layer/], ['featExtractActivation', 'mish2', /gelu/]]
const ctc: Wrong = ['ctcLossReduction', 'avg', /sum.*mean|mean.*sum/]
const positions: Wrong = ['positionEmbeddingsType', 'alibi', /relative.*rotary/]

const FAMILIES: [name: string, kind: string, config: Config, wrong: Wrong[]][] = [
  ['HubertForCTC', 'HubertForCTC', waves, [...speech, ctc]],
  ['Data2VecAudioForCTC', 'Data2VecAudioForCTC', { ...waves, convPosKernelSize: 3 }, [act, ctc]],
  ['Wav2Vec2ConformerForCTC', 'Wav2Vec2ConformerForCTC', { ...waves, convDepthwiseKernelSize: 3 }, [...speech, ctc, positions]], // biome-ignore format: one line
  ['Wav2Vec2BertForCTC', 'Wav2Vec2BertForCTC', { ...trunk, vocabSize: 12, featureProjectionInputDim: 8, convDepthwiseKernelSize: 3 }, [act, ctc, positions]], // biome-ignore format: one line
  ['SiglipVisionModel', 'SiglipVisionModel', image, [act]],
  ['SmolVLM', 'SmolVLM', { visionConfig: image, textConfig: text, imageTokenId: 9 }, [
    ['visionConfig.hiddenAct', 'mish2', /gelu/],
    ['textConfig.hiddenAct', 'mish2', /gelu/],
    ['textConfig.modelType', 'mamba', /llama/],
    ['textConfig.ropeParameters', { ropeType: 'spiral', factor: 2 }, /linear/],
    ['modelType', 'smolvlm3', /'smolvlm' or 'idefics3'/],
  ]], // biome-ignore format: a row
  ...Object.entries(audioLMs).map(([modelType, [parts, kind, wrong]]): [string, string, Config, Wrong[]] => [
    ...([modelType, 'AudioLM', { modelType, ...parts, textConfig: decoder(kind) }] as const),
    [
      ...wrong,
      ['textConfig.hiddenAct', 'mish2', /gelu/],
      ['textConfig.modelType', 'mamba', /llama/],
      ['textConfig.ropeParameters', { ropeType: 'spiral', factor: 2 }, /linear/],
      ['modelType', 'qwen9_audio', /qwen2_audio.*ultravox/],
    ],
  ]),
  ['Emotion2Vec', 'Emotion2Vec', { ...waves, vocabSize: undefined, convPosKernelSize: 3, numExtraTokens: 2, numLabels: 3 }, [['problemType', 'ranking', /regression/]]], // biome-ignore format: one line
  ['Moonshine', 'Moonshine', moonshine, [['encoderHiddenAct', 'mish2', /gelu/], ['decoderHiddenAct', 'mish2', /silu/], plainRope]], // biome-ignore format: one line
  ['Mimi', 'Mimi', mimi, [act, plainRope, ['padMode', 'reflect', /constant.*replicate/]]],
  ['FastConformerEncoder', 'FastConformerEncoder', encoder, [act, ['selfAttentionModel', 'abs_pos', /rel_pos.*rel_pos_local_attn/]]], // biome-ignore format: one line
  ['ParakeetForCTC', 'ParakeetForCTC', { vocabSize: 12, padTokenId: 11, encoderConfig: encoder }, [ctc, ['encoderConfig.hiddenAct', 'mish2', /gelu/]]], // biome-ignore format: one line
  ['ParakeetForRNNT', 'ParakeetForRNNT', transducer, [['hiddenAct', 'gelu', /"relu" or "tanh" or "sigmoid"/]]],
  ['ParakeetForTDT', 'ParakeetForTDT', transducer, [['hiddenAct', 'gelu', /"relu" or "tanh" or "sigmoid"/], ['durations', [0], /above 0/]]], // biome-ignore format: one line
  ...(
    [
      ['qwen3', { useSlidingWindow: true, slidingWindow: 4 }, [act, rope, layers]],
      ['ministral', { slidingWindow: 4 }, [act, rope, layers]],
      ['ministral3', {}, [act, rope]],
      ['mixtral', { numLocalExperts: 2, numExpertsPerTok: 1 }, [act, rope]],
      ['qwen3_moe', { ...experts, numExperts: 2 }, [act, rope]],
      ['olmo2', {}, [act, rope]],
      ['smollm3', {}, [act, rope, layers]],
      ['granite', {}, [act, rope]],
      ['gemma2', gemma, [['hiddenActivation', 'mish2', /gelu/], layers, ['useBidirectionalAttention', true, /false/]]],
      ['gemma3_text', gemma, [['hiddenActivation', 'mish2', /gelu/], layers]],
    ] as [string, Config, Wrong[]][]
  ).map(([kind, more, wrong]): [string, string, Config, Wrong[]] => [kind, 'DecoderLM', decoder(kind, more), wrong]),
]

const classOf = (kind: string) => (voxtorch as unknown as Record<string, Network>)[kind] as Network
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-bad-input-'))
afterAll(() => rmSync(folder, { recursive: true }))

const snake = (key: string) => key.replace(/[A-Z]/g, (one) => `_${one.toLowerCase()}`)

describe.each(FAMILIES)('%s', (name, kind, config, wrong) => {
  it.each(wrong)(
    'an unknown value of %s is refused with the key, the value and what is supported',
    (path, value, supported) => {
      const changed = structuredClone(config)
      const keys = path.split('.')
      const key = keys.pop() as string
      const inner = keys.reduce((at, part) => at[part] as Config, changed)
      inner[key] = value
      let error: unknown
      try {
        ;new (classOf(kind))(changed, { device: 'meta' }).dispose()
      } catch (caught) {
        error = caught
      }
      expect(error).toBeInstanceOf(voxtorch.VoxtorchError)
      const { message } = error as Error
      const isNamed = [key, snake(key), 'ropeType', 'rope_type'].some((one) => message.includes(one))
      expect({ message, isNamed }).toEqual({ message, isNamed: true })
      const shown =
        typeof value === 'string' || typeof value === 'boolean' ? String(value) : Object.values(value as object)[0]
      expect(message).toContain(String(shown))
      expect(message).toMatch(supported)
    },
  )

  it('a checkpoint with missing and extra tensors lists them', async () => {
    const directory = join(folder, name)
    manualSeed(0)
    await scope(async () => {
      using model = new (classOf(kind))(config)
      await model.save(directory)
      const file = join(directory, 'model.safetensors')
      const { tensors } = await loadSafetensors(file)
      const lost = Object.keys(tensors).find((one) => /\.weight$/.test(one)) as string
      const { [lost]: _, ...rest } = tensors as Record<string, Tensor>
      await saveSafetensors(file, { ...rest, 'made.up.weight': zeros([2]) }, { format: 'pt' })
      const load = (classOf(kind) as unknown as { fromPretrained(from: string): Promise<unknown> }).fromPretrained(
        directory,
      )
      const error = (await load.then(() => undefined, (caught: unknown) => caught)) as voxtorch.CheckpointError // biome-ignore format: one line
      expect(error).toBeInstanceOf(voxtorch.CheckpointError)
      const { missing, unexpected } = error as unknown as Record<string, string[]>
      expect(unexpected).toEqual([expect.stringContaining('made.up.weight')])
      expect(missing).toHaveLength(1)
      expect(error.message).toContain('made.up.weight')
      expect(error.message).toContain((missing as string[])[0])
    })
  })
})
