import { describe, expect, it } from 'vitest'
import { readCsv } from '../../lib/files/index.js'
import * as vt from '../../lib/index.js'
import { inverseSqrtSchedule } from '../../lib/train/schedule-shapes.js'

// biome-ignore lint/suspicious/noExplicitAny: options that the types forbid.
const lib = vt as any
const samples = [1, 2, 3]
const param = () => [vt.zeros([2, 2])]
const net = () => new vt.Linear(2, 2)
const small = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8, vocabSize: 9 }
const bound = { groups: [] }
const steps = { numWarmupSteps: 1, numTrainingSteps: 5 }

/** What is called with one option misspelt: the option that is meant, and the call. */
const CALLS: Record<string, [meant: string, call: (wrong: object) => unknown, wrong: string]> = {
  AdamW: ['weightDecay', (o) => new lib.AdamW(param(), o), 'weight_decay'],
  Adam: ['betas', (o) => new lib.Adam(param(), o), 'beta'],
  SGD: ['momentum', (o) => new lib.SGD(param(), o), 'momentun'],
  'a group of SGD': ['momentum', (o) => new lib.SGD([{ params: param(), ...o }]), 'Momentum'],
  'SGD.addGroup': ['dampening', (o) => new lib.SGD(param()).addGroup({ params: param(), ...o }), 'damping'],
  Adagrad: ['lrDecay', (o) => new lib.Adagrad(param(), o), 'lrdecay'],
  Lion: ['maximize', (o) => new lib.Lion(param(), o), 'maximise'],
  AdamW8bit: ['min8bitSize', (o) => new lib.AdamW8bit(param(), o), 'min8BitSizes'],
  parameterGroups: ['noDecay', (o) => lib.parameterGroups(net(), { weightDecay: 0.1, ...o }), 'nodecays'],
  GradScaler: ['initScale', (o) => new lib.GradScaler(o), 'init_scale'],
  ExponentialMovingAverage: ['decay', (o) => new lib.ExponentialMovingAverage(param(), o), 'decai'],
  getScheduler: ['stepsPerEpoch', (o) => lib.getScheduler('constant', { groups: [] }, o), 'stepPerEpoch'],
  getLinearScheduleWithWarmup: [
    'numWarmupSteps',
    (o) => lib.getLinearScheduleWithWarmup(bound, { ...steps, ...o }),
    'warmupSteps',
  ],
  getCosineScheduleWithWarmup: [
    'numCycles',
    (o) => lib.getCosineScheduleWithWarmup(bound, { ...steps, ...o }),
    'cycles',
  ],
  inverseSqrtSchedule: ['timescale', (o) => inverseSqrtSchedule({ numWarmupSteps: 1, ...o }), 'timeScales'],
  DataLoader: ['batchSize', (o) => new lib.DataLoader(samples, o), 'batch_size'],
  'DataLoader of workers': ['workers', (o) => new lib.DataLoader(samples, o), 'numWorkers'],
  lengthBuckets: [
    'bucketSize',
    (o) => new lib.DataLoader(samples, { lengthBuckets: { lengthOf: samples, ...o } }),
    'buckets',
  ],
  RandomSampler: ['replacement', (o) => new lib.RandomSampler(3, o), 'replace'],
  WeightedRandomSampler: ['seed', (o) => new lib.WeightedRandomSampler([1, 2], 2, o), 'sed'],
  BatchSampler: ['dropLast', (o) => new lib.BatchSampler([0, 1], { batchSize: 1, ...o }), 'drop_last'],
  TokenBatchSampler: ['shuffle', (o) => new lib.TokenBatchSampler({ lengths: [1], maxTokens: 2, ...o }), 'shufle'],
  PackedBatchSampler: ['shuffle', (o) => new lib.PackedBatchSampler({ lengths: [1], maxLength: 2, ...o }), 'suffle'],
  MixtureDataset: ['stoppingStrategy', (o) => new lib.MixtureDataset([{ dataset: samples }], o), 'stopping_strategy'],
  'a part of MixtureDataset': ['weight', (o) => new lib.MixtureDataset([{ dataset: samples, ...o }]), 'weights'],
  randomSplit: ['seed', (o) => lib.randomSplit(samples, [1, 2], o), 'sead'],
  padCollate: ['multipleOf', (o) => lib.padCollate({ x: { pad: 0, ...o } }), 'multiple'],
  Linear: ['bias', (o) => new lib.Linear(2, 2, o), 'bies'],
  Conv1d: ['dilation', (o) => new lib.Conv1d(2, 2, 1, o), 'dilations'],
  Embedding: ['paddingIdx', (o) => new lib.Embedding(2, 2, o), 'padding_idx'],
  LayerNorm: ['elementwiseAffine', (o) => new lib.LayerNorm(2, o), 'elementwise_affine'],
  GroupNorm: ['affine', (o) => new lib.GroupNorm(1, 2, o), 'affin'],
  BatchNorm1d: ['momentum', (o) => new lib.BatchNorm1d(2, o), 'momentom'],
  LSTM: ['bidirectional', (o) => new lib.LSTM(2, 2, o), 'bidirectionel'],
  MultiheadAttention: ['batchFirst', (o) => new lib.MultiheadAttention(2, 1, o), 'batch_first'],
  TransformerEncoderLayer: ['dimFeedforward', (o) => new lib.TransformerEncoderLayer(2, 1, o), 'dimFeedForwards'],
  'Roberta.fromConfig': ['dtype', (o) => lib.Roberta.fromConfig(small, o), 'dtpye'],
  'new DecoderLM': ['device', (o) => new lib.DecoderLM(small, o), 'devise'],
  'Wav2Vec2ForCTC.fromPretrained': ['targetLang', (o) => lib.Wav2Vec2ForCTC.fromPretrained('.', o), 'targetLanguage'],
  'DecoderLM.fromPretrained': ['quantize', (o) => lib.DecoderLM.fromPretrained('.', o), 'quantise'],
  'Beats.fromPretrained': ['mmap', (o) => lib.Beats.fromPretrained('.', o), 'nmap'],
  'Spectra.fromPretrained': ['allowMissing', (o) => lib.Spectra.fromPretrained('.', o), 'allow_missing'],
  'Salmonn.fromPretrained': ['encoderDtype', (o) => lib.Salmonn.fromPretrained('.', o), 'encoderDType2'],
  'DecoderLM.save': ['maxShardBytes', (o) => new lib.DecoderLM(small).save('/nowhere/at/all', o), 'maxShardSize'],
  getPeftModel: ['adapterName', (o) => lib.getPeftModel(net(), { targetModules: [''] }, o), 'adapter_name'],
  tensor: ['dtype', (o) => lib.tensor([1], o), 'dtpye'],
  backward: ['retainGraph', (o) => vt.ones([1], { requiresGrad: true }).backward(o), 'retain_graph'],
  'autograd.grad': ['createGraph', (o) => lib.autograd.grad(vt.ones([1]), vt.ones([1]), o), 'create_graph'],
  autocast: ['dtype', (o) => lib.autocast(o, () => 1), 'dtyp'],
  readAudio: ['sampleRate', (o) => lib.readAudio(new Uint8Array(4), o), 'sample_rate'],
  readClip: ['longAudio', (o) => lib.readClip(new Float32Array(4), o), 'long_audio'],
  readAudioStream: ['chunkSeconds', (o) => lib.readAudioStream(new Uint8Array(4), o).next(), 'chunkSecs'],
  logMelSpectrogram: ['nMels', (o) => lib.logMelSpectrogram(vt.zeros([400]), o), 'nmel'],
  resample: ['quality', (o) => lib.resample(vt.zeros([4]), 2, 1, o), 'qualities'],
  loadTorch: ['mmap', (o) => lib.loadTorch('nowhere.pt', o), 'Mmap'],
  loadSafetensors: ['device', (o) => lib.loadSafetensors('nowhere', o), 'devices'],
  readCsv: ['delimiter', (o) => readCsv('nowhere.csv', o as never), 'delimeter'],
  resolveModel: ['revision', (o) => lib.resolveModel('.', o), 'revison'],
  f1Score: ['average', (o) => lib.f1Score([1], [1], o), 'averages'],
  cohenKappa: ['weights', (o) => lib.cohenKappa([1], [1], o), 'weight'],
  loadStateDict: ['strict', (o) => net().loadStateDict(net().stateDict(), o as never), 'stric'],
}

describe('an option that nobody reads is refused', () => {
  it.each(Object.entries(CALLS))('%s', async (_, [meant, call, wrong]) => {
    const message = new RegExp(`expected a known option, got '${wrong}'; did you mean '${meant}'\\?`)
    const made = async () => call({ [wrong]: 1 })
    await expect(made()).rejects.toThrow(message)
    await expect(made()).rejects.toThrow(vt.ConfigError)
  })

  it('and a closure where step takes none', async () => {
    await expect(new lib.SGD(param()).step(() => 1)).rejects.toThrow(/step\(\) without arguments, got a closure/)
    await expect(new lib.SGD(param()).step()).resolves.toBeUndefined()
  })

  it('and by promise', async () => {
    await expect(lib.clipGradNorm([], 1, { normtypes: 1 })).rejects.toThrow(/did you mean 'normType'/)
  })

  it('and in calls of layers', () => {
    const x = vt.ones([1, 2, 2])
    expect(() => new lib.GRU(2, 2).forward(x, null, { length: [1] })).toThrow(/did you mean 'lengths'/)
    expect(() => new lib.MultiheadAttention(2, 1).forward(x, x, x, { attn_mask: null })).toThrow(/'attnMask'/)
    expect(() => new lib.TransformerEncoderLayer(2, 1).forward(x, { isCasual: true })).toThrow(/'isCausal'/)
  })
})
