import { existsSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { defined } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { withFile } from '../files/byte-source.js'
import { requireWeightsOf } from '../hub/weights.js'
import { commandRule } from '../kit/command.js'
import type { OptionsOf } from '../kit/options.js'
import type { AudioLM } from '../models/audio-lm/audio-lm.js'
import type { SpeechForCTC } from '../models/encoders/speech-ctc.js'
import type { Moonshine } from '../models/moonshine/moonshine.js'
import type { ParakeetModel } from '../models/parakeet/head.js'
import type { ParakeetTranscription } from '../models/parakeet/transcribe.js'
import { requireNetworkDType } from '../tensor/dtype.js'

const OPTIONS = {
  model: {
    type: 'string',
    help: 'Whisper: a name of `voxtorch weights`; or a folder or repository of the Hugging Face Hub with Whisper, Parakeet, Moonshine, a CTC network or a speech language model (Qwen3-ASR, Voxtral, ...), or a .nemo file',
    placeholder: 'model',
    default: 'whisper-base',
  },
  language: {
    type: 'string',
    help: 'language of the speech, a code or an English name; default: detected',
    placeholder: 'name',
  },
  languageDetectionSegments: { type: 'integer', min: 1, help: 'number of windows for language detection', default: 1 },
  task: { type: ['transcribe', 'translate'], help: 'translate: the transcript is in English', default: 'transcribe' },
  format: {
    type: ['lines', 'text', 'json', 'srt', 'vtt'],
    help: 'output format on the standard output: lines has segment times, json has all fields',
    default: 'lines; text for speech language models',
  },
  words: { type: 'boolean', help: 'add word timestamps; needs --format json' },
  beams: { type: 'integer', min: 1, help: 'beam size; 1 for greedy decoding', default: 1 },
  prompt: { type: 'string', help: 'initial prompt: expected names and words, or a style', placeholder: 'text' },
  carryInitialPrompt: { type: 'boolean', help: 'use --prompt for every window, not only the first' },
  resampling: {
    type: ['auto', 'sinc', 'kaiser', 'high'],
    help: 'resampling filter to 16 kHz; auto: high for rates below 16 kHz, else sinc',
    default: 'auto',
  },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  dtype: { type: 'string', help: 'dtype of the weights: float32, bfloat16 or float16', placeholder: 'name' },
  quantize: { type: ['int8', 'nf4'], help: 'quantize the weights to 8 or 4 bits' },
  batchSize: {
    type: 'integer',
    min: 1,
    help: 'transcribe this many pieces at once: with Whisper, pieces between pauses, faster for long recordings; with speech language models, pieces of all files',
  },
  vad: {
    type: 'string',
    help: 'voice activity detection for --batch-size: energy, or a model such as silero-vad',
    placeholder: 'name',
    default: 'silero-vad if its weights are downloaded, else energy',
  },
  offline: { type: 'boolean', help: 'use only the cache, without network access' },
  quiet: { type: 'boolean', help: 'do not report downloads and parts without a transcript' },
} as const

/** `voxtorch transcribe`: transcribe recordings with Whisper, Parakeet, Moonshine, a CTC network or a speech language model. */
export const transcribeRule = commandRule({
  name: 'transcribe',
  summary: 'Transcribe recordings with Whisper, Parakeet, Moonshine, a CTC network or a speech language model.',
  details: `  voxtorch transcribe talk.mp3 --model whisper-base
  voxtorch transcribe interview.flac --language de --format srt > interview.srt
  voxtorch transcribe lecture.mp3 --batch-size 8 --vad silero-vad --quantize int8
  voxtorch transcribe talk.mp3 --model nvidia/parakeet-tdt-0.6b-v3
  voxtorch transcribe note.wav --model UsefulSensors/moonshine-tiny
  voxtorch transcribe calls/ --model Qwen/Qwen3-ASR-1.7B-hf --batch-size 8

Reads WAV, AIFF, FLAC, MP3, Ogg Vorbis and more, of any length; of a folder all audio files, in the order of their names. Named weights are downloaded once. Write \`> FILE\` after the
command to save the transcript.`,
  files: 'FILE ...',
  options: OPTIONS,
  originalOptions: {
    ...Object.fromEntries(
      ['output', 'output-file', 'output_dir', '-o'].map((name) => [
        name,
        { instead: 'The transcript goes to the standard output: write > FILE after the command.' },
      ]),
    ),
    ...Object.fromEntries(
      ['timestamps', 'return-timestamps', 'word-timestamps'].map((name) => [
        name,
        { instead: 'The default format has segment times; --format json --words adds word times.' },
      ]),
    ),
  },
  run: transcribe,
})

interface Segment {
  start: number
  end: number
  text: string
}

/** Extensions of the files of a folder that are transcribed. */
const AUDIO = [
  '.wav',
  '.aif',
  '.aiff',
  '.flac',
  '.mp3',
  '.ogg',
  '.oga',
  '.opus',
  '.m4a',
  '.mp4',
  '.aac',
  '.webm',
  '.mka',
]

/** Return the files, with the audio files of folders in their places. @throws DataError for a folder without any */
async function filesIn(paths: readonly string[]): Promise<string[]> {
  const all: string[] = []
  for (const path of paths) {
    const isFolder = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    )
    if (!isFolder) {
      all.push(path)
      continue
    }
    const entries = await readdir(path, { withFileTypes: true })
    const names = entries.filter((one) => !one.isDirectory() && AUDIO.includes(extname(one.name).toLowerCase()))
    if (names.length === 0) {
      throw new DataError(`${path}: expected a folder with audio files (${AUDIO.join(', ')}), got none.`, {
        file: path,
      })
    }
    all.push(...names.map(({ name }) => join(path, name)).sort())
  }
  return all
}

async function transcribe(options: OptionsOf<typeof OPTIONS>, paths: string[]): Promise<number> {
  const { model = 'whisper-base', language, task, words = false, beams, prompt, device, dtype } = options
  const { format = 'lines', offline, quiet = false, quantize, batchSize, vad } = options
  const { languageDetectionSegments, carryInitialPrompt, resampling } = options
  if (paths.length === 0)
    throw new ConfigError('transcribe: expected an audio file, got none. See `voxtorch transcribe --help`.')
  requireNetworkDType('--dtype', dtype)
  requireWeightsOf('transcribe: --model', model, 'Whisper')
  const files = await filesIn(paths)
  if (files.length > 1 && (format === 'srt' || format === 'vtt')) {
    throw new ConfigError(
      `transcribe: --format ${format}: expected one recording, because its output is one file of subtitles, got ${files.length}. Run the command once for each.`,
    )
  }
  if (words && format !== 'json') {
    throw new ConfigError(`transcribe: --words: expected --format json, got ${format}. Add --format json.`)
  }
  if (vad !== undefined && batchSize === undefined) {
    throw new ConfigError('transcribe: --vad: expected --batch-size too, got none. Add --batch-size 8.')
  }
  // A missing file is reported before the others are transcribed.
  for (const file of files) await withFile(file, DataError, async () => {})
  const fetching = defined({ offline, progress: !quiet })
  const loading = { device, dtype, quantize, ...fetching } as never
  const other = await otherThanWhisper(model, fetching, defined(loading))
  if (other !== undefined) {
    if ('audio_tower' in other) return transcribeAnswers(other, files, options)
    return transcribeWith(other, files, options)
  }
  const { Whisper } = await import('../models/whisper/whisper.js')
  const network = await Whisper.fromPretrained(model, defined(loading))
  const finder = vad === undefined ? undefined : await voiceActivity(vad, fetching)
  const rest = defined({
    ...{ language, task, beams, initialPrompt: prompt, batchSize, vad: finder },
    ...{ languageDetectionSegments, carryInitialPrompt, resampling },
  })
  for (const [i, file] of files.entries()) {
    if (files.length > 1 && format !== 'json') console.log(`${i === 0 ? '' : '\n'}${file}`)
    const segments = network.transcribeStream(file, { ...rest, timestamps: words ? 'word' : true })
    if (format === 'vtt') console.log('WEBVTT\n')
    let number = 0
    for (;;) {
      const { done, value } = await segments.next()
      if (done) {
        if (format === 'text') console.log(value.text.trim())
        if (format === 'json') console.log(JSON.stringify({ file, ...value }, rounded))
        else if (!quiet) reportSkipped(file, value.skipped)
        break
      }
      number += 1
      if (format === 'lines') console.log(`[${clock(value.start)} → ${clock(value.end)}] ${value.text.trim()}`)
      if (format === 'srt' || format === 'vtt') console.log(subtitle(value, number, format))
    }
  }
  return 0
}

/** Transcribe with a speech language model, which has no times of words or sentences. */
async function transcribeAnswers(model: AudioLM, files: string[], options: OptionsOf<typeof OPTIONS>): Promise<number> {
  const { format = 'text', words = false, language, prompt, beams, batchSize, vad, offline, quiet = false } = options
  requireNone(
    model.config.modelType,
    options,
    WHISPER_ONLY.filter(([name]) => !ANSWERED.includes(name)),
  )
  if (words || (format !== 'text' && format !== 'json')) {
    const flag = words ? '--words' : `--format ${format}`
    throw new ConfigError(
      `transcribe: ${flag}: expected --format text or json for ${model.config.modelType}, which has no timestamps. Choose another format, or another model.`,
      { option: words ? 'words' : 'format' },
    )
  }
  const { transcribeClips } = await import('../models/audio-lm/transcribe.js')
  const finder = vad === undefined ? undefined : await voiceActivity(vad, defined({ offline, progress: !quiet }))
  const settings = defined({ language, prompt, batchSize, numBeams: beams, vad: finder })
  let i = 0
  for await (const { text, language, segments, skipped } of transcribeClips(model, files, settings)) {
    const file = files[i] as string
    if (format === 'json') console.log(JSON.stringify({ file, text, language, segments, skipped }, rounded))
    else {
      if (files.length > 1) console.log(`${i === 0 ? '' : '\n'}${file}`)
      console.log(text)
    }
    if (format !== 'json' && !quiet) reportSkipped(file, skipped)
    const cut = segments.find((one) => !one.isComplete)
    if (cut !== undefined && !quiet) {
      const when = `${clock(cut.start)} → ${clock(cut.end)}`
      console.error(`${file}: the transcript of ${when} is cut at its maximum number of tokens; --format json marks it`)
    }
    i += 1
  }
  return 0
}

/** Refuse options of another model. */
function requireNone(
  kind: string,
  options: OptionsOf<typeof OPTIONS>,
  unsupported: readonly (readonly [keyof OptionsOf<typeof OPTIONS>, unknown])[],
): void {
  for (const [name, none] of unsupported) {
    const value = options[name]
    if (value === undefined || value === none) continue
    throw new ConfigError(
      `transcribe: --${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}: expected none for ${kind}, got ${JSON.stringify(value)}. Leave it out.`,
      { option: name },
    )
  }
}

/** Options of Whisper that speech language models have too. */
const ANSWERED: readonly string[] = ['language', 'prompt', 'batchSize']

/** Options of Whisper alone, with the values that mean none. */
const WHISPER_ONLY: readonly [keyof OptionsOf<typeof OPTIONS>, unknown][] = [
  ['language', undefined],
  ['languageDetectionSegments', 1],
  ['task', 'transcribe'],
  ['prompt', undefined],
  ['carryInitialPrompt', false],
  ['resampling', 'auto'],
  ['batchSize', undefined],
]
/** The encoder reads a long recording in pieces, as its memory grows with the square of their length. */
const PIECES = { chunkSeconds: 120, strideSeconds: 8 }

/** Seconds without a word after which a segment ends, for networks whose tokens may have no punctuation. */
const PAUSE = 0.5

/** Networks with a CTC head, by `model_type` of config.json. */
const CTC_NETWORKS = {
  wav2vec2: 'Wav2Vec2ForCTC',
  wavlm: 'WavLMForCTC',
  hubert: 'HubertForCTC',
  'data2vec-audio': 'Data2VecAudioForCTC',
  'wav2vec2-conformer': 'Wav2Vec2ConformerForCTC',
  'wav2vec2-bert': 'Wav2Vec2BertForCTC',
} as const

/** Load a Parakeet, Moonshine, CTC or speech language model; undefined for a name, folder or repository of another one. */
async function otherThanWhisper(
  model: string,
  fetching: { offline?: boolean; progress?: boolean },
  loading: object,
): Promise<ParakeetModel | Moonshine | SpeechForCTC | AudioLM | undefined> {
  // Names of published weights are of Whisper.
  if (!/[./\\]/.test(model) && !existsSync(model)) return undefined
  const { describedNemo, isNemo } = await import('../models/parakeet/nemo.js')
  const { resolveModel } = await import('../hub/resolve.js')
  const { readConfig } = await import('../models/pretrained.js')
  const directory = isNemo(model) ? model : await resolveModel(model, fetching)
  const isFolder = existsSync(join(directory, 'config.json'))
  const { modelType, architectures } = (isFolder ? await readConfig(directory) : await describedNemo(directory)) ?? {}
  if (modelType === 'moonshine')
    return (await import('../models/moonshine/moonshine.js')).Moonshine.fromPretrained(directory, loading)
  if (typeof modelType !== 'string') return undefined
  const { AUDIO_MODEL_TYPES } = await import('../models/audio-lm/families.js')
  if ((AUDIO_MODEL_TYPES as readonly string[]).includes(modelType)) {
    return (await import('../models/audio-lm/audio-lm.js')).AudioLM.fromPretrained(directory, loading)
  }
  if (Object.hasOwn(CTC_NETWORKS, modelType)) {
    const name = CTC_NETWORKS[modelType as keyof typeof CTC_NETWORKS]
    const [architecture] = Array.isArray(architectures) ? architectures : []
    if (typeof architecture === 'string' && !architecture.endsWith('ForCTC')) {
      throw new ConfigError(
        `transcribe: --model: expected ${name}, got ${architecture}, which has no CTC head. Choose another model.`,
        { option: 'model', architecture },
      )
    }
    const networks = await import('../models/encoders/speech-ctc.js')
    // One type for all: their static methods have the same arguments.
    const Network = networks[name] as unknown as typeof networks.Wav2Vec2ForCTC
    return Network.fromPretrained(directory, loading)
  }
  if (!modelType.startsWith('parakeet_')) return undefined
  if (modelType === 'parakeet_ctc') {
    return (await import('../models/parakeet/ctc.js')).ParakeetForCTC.fromPretrained(directory, loading)
  }
  const { ParakeetForRNNT, ParakeetForTDT } = await import('../models/parakeet/transducer.js')
  const Network = modelType === 'parakeet_tdt' ? ParakeetForTDT : ParakeetForRNNT
  return Network.fromPretrained(directory, loading)
}

async function transcribeWith(
  network: ParakeetModel | Moonshine | SpeechForCTC,
  files: string[],
  options: OptionsOf<typeof OPTIONS>,
): Promise<number> {
  const isParakeet = 'extractFeatures' in network
  const isCtc = 'lm_head' in network
  const unsupported =
    isParakeet || isCtc ? WHISPER_ONLY : [...WHISPER_ONLY, ['words', false] as const, ['beams', 1] as const]
  requireNone(network.constructor.name, options, unsupported)
  const { format = 'lines', words = false, beams = 1 } = options
  const { segmentsOf } = await import('../models/parakeet/transcribe.js')
  const read = async (file: string): Promise<ParakeetTranscription> => {
    if (isParakeet) return network.transcribe(file, { timestamps: 'segment', numBeams: beams, ...PIECES })
    if (!isCtc) return network.transcribe(file)
    const { text, words = [] } = await network.transcribe(file, { timestamps: 'word', beamWidth: beams, ...PIECES })
    return { text, words, segments: segmentsOf(words, PAUSE) }
  }
  for (const [i, file] of files.entries()) {
    if (files.length > 1 && format !== 'json') console.log(`${i === 0 ? '' : '\n'}${file}`)
    const found = await read(file)
    const segments = found.segments ?? []
    if (format === 'vtt') console.log('WEBVTT\n')
    if (format === 'text') console.log(found.text)
    if (format === 'json') {
      const all = { file, text: found.text, segments, ...(words && { words: found.words }) }
      console.log(JSON.stringify(all, rounded))
    }
    for (const [number, segment] of segments.entries()) {
      if (format === 'lines') console.log(`[${clock(segment.start)} → ${clock(segment.end)}] ${segment.text}`)
      if (format === 'srt' || format === 'vtt') console.log(subtitle(segment, number + 1, format))
    }
  }
  return 0
}

/** Round seconds to milliseconds, since sums of frames have digits such as 0.8200000000000001. */
const rounded = (key: string, value: unknown): unknown =>
  (key === 'start' || key === 'end') && typeof value === 'number' ? Math.round(value * 1000) / 1000 : value

/** Report parts without a transcript on stderr. */
function reportSkipped(file: string, skipped: readonly { start: number; end: number }[]): void {
  if (skipped.length === 0) return
  const seconds = skipped.reduce((sum, { start, end }) => sum + end - start, 0)
  const first = skipped.slice(0, 3).map(({ start, end }) => `${clock(start)} → ${clock(end)}`)
  const more = skipped.length > first.length ? ', …' : ''
  console.error(
    `${file}: no transcript of ${seconds.toFixed(1)} s (${first.join(', ')}${more}); --format json lists all parts`,
  )
}

async function voiceActivity(name: string, fetching: { offline?: boolean; progress?: boolean }) {
  if (name === 'energy') return (await import('../audio/silence.js')).energyVad
  const { SileroVad } = await import('../models/silero-vad.js')
  return (await SileroVad.fromPretrained(name, fetching)).segments
}

function subtitle({ start, end, text }: Segment, number: number, format: 'srt' | 'vtt'): string {
  const time = (seconds: number) => {
    const whole = Math.floor(seconds / 3600)
    const mark = format === 'srt' ? ',' : '.'
    return `${String(whole).padStart(2, '0')}:${clock(seconds - 3600 * whole, 3)
      .padStart(6, '0')
      .replace('.', mark)}`
  }
  return `${format === 'srt' ? `${number}\n` : ''}${time(start)} --> ${time(end)}\n${text.trim()}\n`
}

/** Format seconds as mm:ss.xx. */
function clock(seconds: number, digits = 2): string {
  const [whole, part] = seconds.toFixed(digits).split('.') as [string, string]
  const two = (value: number) => String(value).padStart(2, '0')
  return `${two(Math.floor(Number(whole) / 60))}:${two(Number(whole) % 60)}.${part}`
}
