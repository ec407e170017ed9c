import { defined, shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { snakeCase } from '../../../base/words.js'
import { readConfig } from '../../../files/yaml/yaml.js'
import { flagOf, type IgnoredOption, readOptions, refuseFiles } from '../../../kit/options.js'
import { metricsTable } from '../../../kit/recipe.js'
import type { Device } from '../../../tensor/index.js'
import type { OpenEmotionOptions } from '../data/open.js'
import { CLASSIFIER_SETTINGS, CONTEXT_SETTINGS, type EmotionModality } from '../network/config.js'
import type { EmotionEncoder } from '../network/encoders.js'
import { isLanguageBind, languageBindEncoders } from '../network/languagebind-encoders.js'
import { EmotionTextEncoder } from '../network/text-encoder.js'
import { EmotionFbankEncoder, EmotionVoiceEncoder } from '../network/voice-encoder.js'
import type { PairResults, TrainPairsOptions } from '../published/train-pairs.js'
import type { PointerResults, TrainPointerOptions } from '../published/train-pointer.js'
import { EMOTION_SETTINGS, HEAD_SETTINGS } from '../training/recipe.js'
import type { EmotionResults, TrainEmotionOptions } from '../training/train.js'
import { EMOTION_OPTIONS, EMOTION_ORIGINAL_OPTIONS, type EmotionArguments } from './arguments.js'
import { OPEN_SETTINGS, TEXT_SETTINGS } from './settings.js'

/**
 * Complete options with those of the file that `config` names; command-line options take precedence. Keys of the file are option
 * names in camelCase, with hyphens or underscores, or the original's names.
 * @throws ConfigError for an unknown key or an invalid value; DataError for a file that cannot be parsed
 */
export async function withConfigFile(
  options: EmotionArguments,
): Promise<{ options: EmotionArguments; ignored: IgnoredOption[] }> {
  if (options.config === undefined) return { options, ignored: [] }
  const file = options.config
  const value = await readConfig(file)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ConfigError(
      `${file}: expected a mapping of option names to values, got ${shown(value)}. Write one option per line.`,
      { file },
    )
  }
  const words = Object.entries(value).flatMap(([name, given]) => {
    const flag = `--${snakeCase(name)}`
    if (given === null || given === undefined) return []
    if (typeof given === 'object' && !Array.isArray(given)) {
      throw new ConfigError(
        `${file}: ${name}: expected a single value or a list, got ${shown(given)}. Options have no nested keys.`,
        { file, argument: name },
      )
    }
    return [`${flag}=${Array.isArray(given) ? given.join(',') : String(given)}`]
  })
  const read = readOptions(file, EMOTION_OPTIONS, words, EMOTION_ORIGINAL_OPTIONS)
  refuseFiles(file, read.files)
  if (read.options.config !== undefined) {
    throw new ConfigError(`${file}: config: expected no \`config\` option in a config file, got one. Remove it.`, {
      ...{ file, argument: 'config' },
    })
  }
  return { options: { ...read.options, ...options }, ignored: read.ignored }
}

/**
 * Parse a command line of `voxtorch emotion train`, with the file that its `--config` names.
 * @throws ConfigError for an unknown option, and for a config file that cannot be used
 */
export async function readEmotionArguments(
  argv: readonly string[],
): Promise<{ options: EmotionArguments; ignored: IgnoredOption[] }> {
  const given = readOptions('emotion', EMOTION_OPTIONS, argv, EMOTION_ORIGINAL_OPTIONS)
  refuseFiles('emotion', given.files)
  const { options, ignored } = await withConfigFile(given.options)
  return { options, ignored: [...given.ignored, ...ignored, ...unusedEmotionArguments(options)] }
}

/** Options that have no effect on a training on pairs. */
const PAIRLESS = [
  ...(['fusion', 'hiddenSize', 'contextLayers', 'contextHeads', 'causal', 'dropout', 'modalityDropout'] as const),
  ...(['headBias', 'classWeights', 'focalGamma', 'labelSmoothing', 'causes'] as const),
]

/** Return the options that have no effect in combination with others, with the reason, for a warning. */
export function unusedEmotionArguments(options: EmotionArguments): IgnoredOption[] {
  const { tune = 'head', contextLayers, fusion, compat, text = 'minilm' } = options
  const layers = contextLayers ?? (compat === 'published' ? 0 : 2)
  const isPlain = ['concat', 'concat-ln', 'frames'].includes(
    fusion ?? (compat === 'published' ? 'concat' : 'concat-ln'),
  )
  const rules: [boolean, string, (keyof EmotionArguments)[]][] = [
    [tune !== 'lora', 'it needs --tune lora', ['loraRank', 'loraAlpha', 'loraDropout', 'loraTargets', 'loraBias']],
    [tune === 'head', 'the encoders are frozen', ['encoderLearningRate']],
    [layers === 0, '--context-layers is 0', ['contextHeads', 'causal']],
    [layers === 0 && isPlain, 'this fusion concatenates the vectors', ['hiddenSize']],
    [text === 'none', 'no text encoder is used', ['textHistory', 'textNames', 'textLength']],
    [options.pairs === true, '--pairs trains linear layers only', PAIRLESS],
    [options.pointer === true, '--pointer trains a network of its own', [...PAIRLESS, 'tune', 'compat', 'pairs']],
  ]
  return rules.flatMap(([holds, reason, names]) =>
    names.filter((name) => holds && options[name] !== undefined).map((name) => ({ flag: flagOf(name), reason })),
  )
}

/** Return the arguments of `openEmotionData`. @throws ConfigError without `data` */
export function emotionDataOfArguments(options: EmotionArguments): [path: string, options: OpenEmotionOptions] {
  const { data } = options
  if (data === undefined)
    throw new ConfigError('--data: expected a folder or file, got no value. Add --data DIR or --data FILE.', {
      argument: 'data',
    })
  // A pair belongs to one dialog, so dialogs are not split.
  const utterances = options.compat === 'published' && !options.pairs && !options.pointer
  const splitBy = options.splitBy ?? (utterances ? 'utterance' : undefined)
  return [data, { ...OPEN_SETTINGS.fromOptions(options), ...(splitBy && { splitBy }) }]
}

/** Load the encoders that a command line names. @throws ConfigError without any */
export async function encodersOfArguments(options: EmotionArguments): Promise<EmotionEncoder[]> {
  const { text = 'minilm', audio, video, device, fusion } = options
  const reading = TEXT_SETTINGS.fromOptions(options)
  const factory = device === undefined ? {} : { device: device as Device }
  const encoders: EmotionEncoder[] = []
  const bound = async (place: string | undefined) =>
    place !== undefined && place !== 'fbank' && (await isLanguageBind(place))
  const [isText, isAudio] = [text !== 'none' && (await bound(text)), await bound(audio)]
  if (video !== undefined || isText || isAudio) {
    if (isText && ![video, audio].includes(text)) {
      throw new ConfigError(
        `--text: expected the same LanguageBind as --video or --audio, got ${text}. Name the same folder, or a BERT or RoBERTa.`,
        { argument: 'text' },
      )
    }
    if (isText && Object.keys(reading).length > 0) {
      throw new ConfigError(
        '--text: expected a BERT or RoBERTa with --text-history, --text-names or --text-length, got a LanguageBind. Leave them out.',
        { argument: 'text' },
      )
    }
    const states = fusion === 'frames'
    const names: EmotionModality[] = [
      ...(video === undefined ? [] : ['video' as const]),
      ...(isAudio ? ['audio' as const] : []),
      ...(isText ? ['text' as const] : []),
    ]
    const bound = await languageBindEncoders({ video, audio: isAudio ? audio : undefined }, names, {
      ...factory,
      ...(states && { states }),
    })
    encoders.push(...(bound as unknown as EmotionEncoder[]))
  }
  if (text !== 'none' && !isText) {
    encoders.push((await EmotionTextEncoder.fromPretrained(text, { ...reading, ...factory })) as EmotionEncoder)
  }
  if (audio === 'fbank') encoders.push(new EmotionFbankEncoder() as unknown as EmotionEncoder)
  else if (audio !== undefined && !isAudio) {
    encoders.push((await EmotionVoiceEncoder.fromPretrained(audio, factory)) as unknown as EmotionEncoder)
  }
  if (encoders.length === 0)
    throw new ConfigError('--text, --audio, --video: expected at least one model, got none. Add one of the options.', {
      argument: 'text',
    })
  return encoders
}

/** Return the options of `trainEmotion`, except `data` and `encoders`. */
export function emotionTrainingOfArguments(options: EmotionArguments): Omit<TrainEmotionOptions, 'data' | 'encoders'> {
  const { fusion, contextLayers, compat, cache, onBadRecord, maxSteps, progress, learningRate } = options
  const { tune = 'head', loraRank, loraAlpha, loraDropout, loraTargets, loraBias } = options
  const published = compat === 'published'
  const layers = contextLayers ?? (published ? 0 : 2)
  const lora = { r: loraRank, loraAlpha, loraDropout, bias: loraBias, targetModules: loraTargets }
  const { labels: _, compat: __, ...config } = CLASSIFIER_SETTINGS.fromOptions(options)
  return {
    outputDir: options.output ?? 'emotion',
    config: {
      ...(published && { fusion: 'concat', headBias: false }),
      ...(published && fusion === 'frames' && { compat }),
      ...config,
      context: layers === 0 ? null : { ...CONTEXT_SETTINGS.fromOptions(options), layers },
    },
    recipe: {
      ...(published && learningRate !== undefined && { encoderLearningRate: learningRate }),
      ...EMOTION_SETTINGS.fromOptions(options),
    },
    tune: tune === 'lora' ? defined(lora) : tune,
    ...defined({ compat, cache, onBadRecord, device: options.device as Device | undefined }),
    args: defined({ maxSteps, progress }),
  }
}

/** Return the options of `trainPairs`, except `data` and `encoders`. */
export function pairTrainingOfArguments(options: EmotionArguments): Omit<TrainPairsOptions, 'data' | 'encoders'> {
  const { config: _, ...training } = emotionTrainingOfArguments(options)
  const { learningRate, keyMetric } = options
  return {
    ...training,
    recipe: {
      ...(learningRate !== undefined && { encoderLearningRate: learningRate }),
      ...HEAD_SETTINGS.fromOptions(options),
      // 'macroF1', 'weightedF1' and 'accuracy' are metrics of single utterances, not of pairs.
      ...(keyMetric === 'loss' && { keyMetric }),
    },
  }
}

/** Return the options of `trainPointer`, except `data` and `encoders`. */
export function pointerTrainingOfArguments(options: EmotionArguments): Omit<TrainPointerOptions, 'data' | 'encoders'> {
  const { tune: _, compat: __, recipe, ...training } = pairTrainingOfArguments(options)
  const { encoderLearningRate: ___, keyMetric: ____, ...changes } = recipe ?? {}
  const { keyMetric } = options
  return {
    ...training,
    recipe: { ...changes, ...((keyMetric === 'accuracy' || keyMetric === 'loss') && { keyMetric }) },
  }
}

/** Format the results of pairs, or of the pointer, as text. */
export function pairText(results: PairResults | PointerResults): string {
  const { pairs, bestStep, keyMetric, parameters, notes } = results
  const trained =
    'trainable' in results ? `${results.trainable} of ${parameters} parameters trained` : `${parameters} parameters`
  const official = 'official' in results ? results.official : null
  return [
    ...notes,
    `${pairs.train} pairs for training, ${pairs.valid} for validation, ${pairs.test} for test; best at step ${bestStep}`,
    trained,
    metricsTable(results, keyMetric),
    ...(official ? [`weighted F1 of pairs on test data ${official.weightedF1.toFixed(4)}`] : []),
  ].join('\n')
}

export const pointerText: (results: PointerResults) => string = pairText

/** Format the results as text. */
export function emotionText(results: EmotionResults): string {
  const { samples, bestStep, keyMetric, temperature, trainable, parameters, notes } = results
  return [
    ...notes,
    `${samples.train} dialogs for training, ${samples.valid} for validation, ${samples.test} for test; best at step ${bestStep}`,
    `${trainable} of ${parameters} parameters trained; temperature ${temperature.toFixed(3)}`,
    metricsTable(results, keyMetric),
  ].join('\n')
}
