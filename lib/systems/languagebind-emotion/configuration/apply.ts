import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { snakeCase } from '../../../base/words.js'
import { readConfig } from '../../../files/yaml/yaml.js'
import { flagOf, type IgnoredOption, readOptions, refuseFiles } from '../../../kit/options.js'
import { metricsTable } from '../../../kit/recipe.js'
import type { Device } from '../../../tensor/index.js'
import type { OpenEmotionOptions } from '../data/open.js'
import type { EmotionModality } from '../network/config.js'
import { isLanguageBind, languageBindTowers } from '../network/languagebind-towers.js'
import { TextTower } from '../network/text-tower.js'
import type { EmotionTower } from '../network/towers.js'
import { FbankTower, VoiceTower } from '../network/voice-tower.js'
import type { PairResults, TrainPairsOptions } from '../published/train-pairs.js'
import type { PointerResults, TrainPointerOptions } from '../published/train-pointer.js'
import type { EmotionResults, TrainEmotionOptions } from '../training/train.js'
import { EMOTION_FOREIGN, EMOTION_OPTIONS, type EmotionArguments } from './arguments.js'

/**
 * Options with those of the file that `config` names below them. Its keys are the options' names, in camelCase, with
 * hyphens or underscores, or the original's.
 * @throws ConfigError for a key that is none, and a value that it cannot have; DataError for a broken file
 */
export async function withConfigFile(
  options: EmotionArguments,
): Promise<{ options: EmotionArguments; ignored: IgnoredOption[] }> {
  if (options.config === undefined) return { options, ignored: [] }
  const file = options.config
  const value = await readConfig(file)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ConfigError(`${file} is no list of options and their values`, { file })
  }
  const words = Object.entries(value).flatMap(([name, given]) => {
    const flag = `--${snakeCase(name)}`
    if (given === null || given === undefined) return []
    if (typeof given === 'object' && !Array.isArray(given)) {
      throw new ConfigError(`${file}: ${name} has parts, which no option has`, { file, argument: name })
    }
    return [`${flag}=${Array.isArray(given) ? given.join(',') : String(given)}`]
  })
  const read = readOptions(file, EMOTION_OPTIONS, words, EMOTION_FOREIGN)
  refuseFiles(file, read.files)
  if (read.options.config !== undefined) {
    throw new ConfigError(`${file}: a file of options names no other one`, { file, argument: 'config' })
  }
  return { options: { ...read.options, ...options }, ignored: read.ignored }
}

/**
 * Reads a command line as `voxtorch emotion train` does, with the file that its `--config` names.
 * @throws ConfigError for a file of options that cannot be used, and for an option that is none
 */
export async function readEmotionArguments(
  argv: readonly string[],
): Promise<{ options: EmotionArguments; ignored: IgnoredOption[] }> {
  const given = readOptions('emotion', EMOTION_OPTIONS, argv, EMOTION_FOREIGN)
  refuseFiles('emotion', given.files)
  const { options, ignored } = await withConfigFile(given.options)
  return { options, ignored: [...given.ignored, ...ignored, ...unusedEmotionArguments(options)] }
}

/** What a training on pairs has no use for. */
const PAIRLESS = [
  ...(['fusion', 'hiddenSize', 'contextLayers', 'contextHeads', 'causal', 'dropout', 'modalityDropout'] as const),
  ...(['headBias', 'classWeights', 'focalGamma', 'labelSmoothing', 'causes'] as const),
]

/** What options say that has no effect beside the others, with the reason: tell the user. */
export function unusedEmotionArguments(options: EmotionArguments): IgnoredOption[] {
  const { tune = 'head', contextLayers, fusion, compat, text = 'minilm' } = options
  const layers = contextLayers ?? (compat === 'published' ? 0 : 2)
  const isPlain = ['concat', 'concat-ln', 'frames'].includes(
    fusion ?? (compat === 'published' ? 'concat' : 'concat-ln'),
  )
  const rules: [boolean, string, (keyof EmotionArguments)[]][] = [
    [tune !== 'lora', 'it is for --tune lora', ['loraRank', 'loraAlpha', 'loraDropout', 'loraTargets', 'loraBias']],
    [tune === 'head', 'no tower trains', ['towerLearningRate']],
    [layers === 0, 'there is no context', ['contextHeads', 'causal']],
    [layers === 0 && isPlain, 'vectors stand side by side', ['hiddenSize']],
    [text === 'none', 'no text is read', ['textHistory', 'textNames', 'textLength']],
    [options.pairs === true, 'pairs are told apart by layers alone', PAIRLESS],
    [options.pointer === true, 'the pointer is a network of its own', [...PAIRLESS, 'tune', 'compat', 'pairs']],
  ]
  return rules.flatMap(([holds, reason, names]) =>
    names.filter((name) => holds && options[name] !== undefined).map((name) => ({ flag: flagOf(name), reason })),
  )
}

/** What `openEmotionData` is given. @throws ConfigError where no data is named */
export function emotionDataOfArguments(options: EmotionArguments): [path: string, options: OpenEmotionOptions] {
  const { data, format, valid, test, clips, labels, onBadRecord, validShare, testShare, trainShare, seed } = options
  if (data === undefined) throw new ConfigError('Say where the data is: --data DIR or FILE', { argument: 'data' })
  // Pairs are of one dialog, which then stays whole.
  const utterances = options.compat === 'published' && !options.pairs && !options.pointer
  const splitBy = options.splitBy ?? (utterances ? 'utterance' : undefined)
  const rest = { format, valid, test, clips, labels, onBadRecord, validShare, testShare, trainShare, seed, splitBy }
  return [data, defined(rest)]
}

/** The towers that a command line names. */
export async function towersOfArguments(options: EmotionArguments): Promise<EmotionTower[]> {
  const { text = 'minilm', textHistory, textNames, textLength, audio, video, device, fusion } = options
  const factory = device === undefined ? {} : { device: device as Device }
  const towers: EmotionTower[] = []
  const bound = async (place: string | undefined) =>
    place !== undefined && place !== 'fbank' && (await isLanguageBind(place))
  const [isText, isAudio] = [text !== 'none' && (await bound(text)), await bound(audio)]
  if (video !== undefined || isText || isAudio) {
    if (isText && ![video, audio].includes(text)) {
      throw new ConfigError('--text of LanguageBind is that of --video or --audio: name the same folder', {
        argument: 'text',
      })
    }
    if (isText && (textHistory ?? textNames ?? textLength) !== undefined) {
      throw new ConfigError('--text-history, --text-names and --text-length are for a BERT or a RoBERTa', {
        argument: 'text',
      })
    }
    const states = fusion === 'frames'
    const names: EmotionModality[] = [
      ...(video === undefined ? [] : ['video' as const]),
      ...(isAudio ? ['audio' as const] : []),
      ...(isText ? ['text' as const] : []),
    ]
    const made = await languageBindTowers({ video, audio: isAudio ? audio : undefined }, names, {
      ...factory,
      ...(states && { states }),
    })
    towers.push(...(made as unknown as EmotionTower[]))
  }
  if (text !== 'none' && !isText) {
    const reading = defined({ history: textHistory, names: textNames, maxLength: textLength })
    towers.push((await TextTower.fromPretrained(text, { ...reading, ...factory })) as EmotionTower)
  }
  if (audio === 'fbank') towers.push(new FbankTower() as unknown as EmotionTower)
  else if (audio !== undefined && !isAudio) {
    towers.push((await VoiceTower.fromPretrained(audio, factory)) as unknown as EmotionTower)
  }
  if (towers.length === 0) throw new ConfigError('Say what to read: --text, --audio or --video', { argument: 'text' })
  return towers
}

/** What `trainEmotion` is given beside data and towers. */
export function emotionTrainingOfArguments(options: EmotionArguments): Omit<TrainEmotionOptions, 'data' | 'towers'> {
  const { fusion, hiddenSize, contextLayers, contextHeads, causal, dropout, modalityDropout, headBias, compat } =
    options
  const { tune = 'head', loraRank, loraAlpha, loraDropout, loraTargets, loraBias } = options
  const { epochs, batchSize, accumulation, learningRate, towerLearningRate, weightDecay, warmup, maxGradNorm } = options
  const { patience, classWeights, focalGamma, labelSmoothing, keyMetric, bf16, seed, maxSteps, progress, cache } =
    options
  const { onBadRecord } = options
  const device = options.device as Device | undefined
  const published = compat === 'published'
  const layers = contextLayers ?? (published ? 0 : 2)
  const lora = { r: loraRank, loraAlpha, loraDropout, bias: loraBias, targetModules: loraTargets }
  return {
    outputDir: options.output ?? 'emotion',
    config: {
      ...(published && { fusion: 'concat' as const, headBias: false }),
      ...(published && fusion === 'frames' && { compat: 'published' as const }),
      ...defined({ fusion, hiddenSize, dropout, modalityDropout, headBias }),
      context: layers === 0 ? null : { layers, ...defined({ heads: contextHeads, causal }) },
    },
    recipe: defined({
      ...{ epochs, batchSize, accumulation, headLearningRate: learningRate, weightDecay, warmup, maxGradNorm },
      towerLearningRate: towerLearningRate ?? (published ? learningRate : undefined),
      ...{ patience, classWeights, focalGamma, labelSmoothing, keyMetric, bf16, seed },
    }),
    tune: tune === 'lora' ? defined(lora) : tune,
    ...(compat && { compat }),
    ...defined({ cache, onBadRecord, device }),
    args: defined({ maxSteps, progress }),
  }
}

/** What `trainPairs` is given beside data and towers. */
export function pairTrainingOfArguments(options: EmotionArguments): Omit<TrainPairsOptions, 'data' | 'towers'> {
  const { outputDir, tune, compat, cache, args, onBadRecord, device } = emotionTrainingOfArguments(options)
  const { epochs, batchSize, accumulation, learningRate, towerLearningRate, weightDecay, warmup, maxGradNorm } = options
  const { patience, keyMetric, bf16, seed } = options
  return {
    outputDir,
    recipe: defined({
      ...{ epochs, batchSize, accumulation, headLearningRate: learningRate, weightDecay, warmup, maxGradNorm },
      ...{ towerLearningRate: towerLearningRate ?? learningRate, patience, bf16, seed },
      // The metrics of single utterances are none of pairs.
      keyMetric: keyMetric === 'loss' ? keyMetric : undefined,
    }),
    ...defined({ tune, compat, cache, args, onBadRecord, device }),
  }
}

/** What `trainPointer` is given beside data and towers. */
export function pointerTrainingOfArguments(options: EmotionArguments): Omit<TrainPointerOptions, 'data' | 'towers'> {
  const { outputDir, recipe = {}, cache, args, onBadRecord, device } = pairTrainingOfArguments(options)
  const { towerLearningRate: _, ...rest } = recipe
  const keyMetric = options.keyMetric === 'accuracy' ? { keyMetric: 'accuracy' } : {}
  return { outputDir, recipe: { ...rest, ...keyMetric }, ...defined({ cache, args, onBadRecord, device }) }
}

/** Results of the pointer as text. */
export function pointerText(results: PointerResults): string {
  const { pairs, bestStep, keyMetric, parameters, notes } = results
  return [
    ...notes,
    `${pairs.train} pairs to learn from, ${pairs.valid} to choose by, ${pairs.test} to test on; best at step ${bestStep}`,
    `${parameters} parameters`,
    metricsTable(results, keyMetric),
  ].join('\n')
}

/** Results of pairs as text. */
export function pairText(results: PairResults): string {
  const { pairs, bestStep, keyMetric, trainable, parameters, notes, official } = results
  return [
    ...notes,
    `${pairs.train} pairs to learn from, ${pairs.valid} to choose by, ${pairs.test} to test on; best at step ${bestStep}`,
    `${trainable} of ${parameters} parameters trained`,
    metricsTable(results, keyMetric),
    ...(official ? [`pairs of the test data, weighted F1 ${official.weightedF1.toFixed(4)}`] : []),
  ].join('\n')
}

/** Results as text. */
export function emotionText(results: EmotionResults): string {
  const { samples, bestStep, keyMetric, temperature, trainable, parameters, notes } = results
  return [
    ...notes,
    `${samples.train} dialogs to learn from, ${samples.valid} to choose by, ${samples.test} to test on; best at step ${bestStep}`,
    `${trainable} of ${parameters} parameters trained; temperature ${temperature.toFixed(3)}`,
    metricsTable(results, keyMetric),
  ].join('\n')
}
