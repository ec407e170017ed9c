import { SPEECH_RATE } from '../../../audio/clip.js'
import { argumentError, requireObject } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { lengthMask, lengthsTensor, padClips, padTokens } from '../../../kit/pad.js'
import { labelTensor } from '../../../kit/task.js'
import { noGrad, scope, Tensor } from '../../../tensor/index.js'
import type { SpectraTask } from '../evaluation/task.js'
import type { SpectraAudio, SpectraSample } from './sample.js'

/** Maximum samples of a clip: 10 s at 16 kHz. */
export const SPECTRA_AUDIO_LENGTH = 10 * SPEECH_RATE
export const SPECTRA_TEXT_LENGTH = 512

// The eight convolutions of the audio encoder need at least this many samples for one frame. Shorter clips are padded.
const MIN_SAMPLES = 1680

const COLLATE_SETTINGS = settings({
  /** Use the clips of previous turns if samples have them. */
  historyAudio: { type: 'boolean', default: true },
  /** Add token types from turn ids if samples have them. */
  turnIds: { type: 'boolean', default: true },
  /** Maximum tokens of a text; of a longer one, the first token and the last ones are kept. */
  maxTextLength: { type: 'integer', min: 2, default: SPECTRA_TEXT_LENGTH },
  /** Maximum samples of a clip; of a longer one, the beginning is kept. */
  maxAudioLength: { type: 'integer', min: MIN_SAMPLES, default: SPECTRA_AUDIO_LENGTH },
  /**
   * 'published': pad every clip to `maxAudioLength`, and round audio and numeric labels to float16, as the original does. Default: clips
   * are padded to the longest of the batch.
   */
  compat: { type: ['published'] },
  /** Action for a current turn without speech (audio null): 'refuse' throws; 'allow' adds a row of zeros of length 0. */
  emptyAudio: { type: ['refuse', 'allow'], default: 'refuse' },
})

/** @interface */
export type SpectraCollateOptions = ChangesOf<typeof COLLATE_SETTINGS.table>

/** A batch for SPECTRA's networks. B samples; R = B rows of audio, or 2 B with clips of previous turns. */
export interface SpectraBatch {
  /** int64 [B, L] */
  inputIds: Tensor
  /** bool [B, L] */
  attentionMask: Tensor
  /** int64 [B, L], 0 for previous turns and padding, 1 for the current one; left out for a task without turns. */
  tokenTypeIds?: Tensor
  /** float32 [R, S]; for each sample the clip of the previous turn, then that of the current turn. */
  inputValues: Tensor
  /** int64 [R]: number of samples without padding; 0 without speech. */
  audioLengths: Tensor
  audiosPerText: 1 | 2
  /** float32 [B] for a regression, int64 [B] for classes. */
  labels: Tensor
}

/** Number of distinct samples that were truncated, by source. */
export interface SpectraCuts {
  readonly audio: number
  readonly historyAudio: number
  readonly text: number
}

export interface SpectraCollator {
  (samples: readonly SpectraSample[]): Promise<SpectraBatch>
  /** Counts of truncated samples so far. */
  readonly cuts: SpectraCuts
}

/**
 * Return a function that collates samples of SPECTRA. Texts are padded with 0, and masked.
 *
 * The collator throws DataError naming the sample: for audio with NaN or infinities, or of another shape or dtype; for empty audio
 * unless it is allowed; if only some samples of a batch have history audio or turn ids.
 */
export function spectraCollate(task: Pick<SpectraTask, 'kind'>, options: SpectraCollateOptions = {}): SpectraCollator {
  const where = 'spectraCollate'
  requireObject(where, 'task', task)
  const read = COLLATE_SETTINGS.read(where, options)
  const { historyAudio, turnIds, maxTextLength, maxAudioLength, compat, emptyAudio } = read
  const cut = { audio: new Set<string>(), historyAudio: new Set<string>(), text: new Set<string>() }
  const published = compat === 'published'

  const collate = (samples: readonly SpectraSample[]): Promise<SpectraBatch> =>
    scope(async (): Promise<SpectraBatch> => {
      if (!Array.isArray(samples) || samples.length === 0) {
        throw argumentError(where, 'samples', 'an array with at least one sample', samples)
      }
      requireForm(where, 'samples', samples, [{ inputIds: 'list', source: 'string' }])
      const hasHistoryAudio = historyAudio && inAllOrNone(samples, 'historyAudio')
      const hasTurnIds = turnIds && inAllOrNone(samples, 'turnIds')
      for (const { inputIds, source } of samples) if (inputIds.length > maxTextLength) cut.text.add(source)
      const audio = await noGrad(() =>
        audioRows(samples, { hasHistoryAudio, maxAudioLength, published, refuse: emptyAudio === 'refuse', cut }),
      )
      return {
        ...textRows(samples, maxTextLength, hasTurnIds),
        ...audio,
        audiosPerText: hasHistoryAudio ? 2 : 1,
        labels: labelsOf(samples, task, published),
      }
    })
  const cuts = {
    get audio() {
      return cut.audio.size
    },
    get historyAudio() {
      return cut.historyAudio.size
    },
    get text() {
      return cut.text.size
    },
  }
  return Object.assign(collate, { cuts })
}

function inAllOrNone(samples: readonly SpectraSample[], field: 'historyAudio' | 'turnIds'): boolean {
  const has = samples[0]![field] !== undefined
  const odd = samples.find((sample) => (sample[field] !== undefined) !== has)
  if (odd === undefined) return has
  throw new DataError(
    `${odd.source}: expected ${has ? '' : 'no '}${field}, like ${samples[0]!.source} in the same batch, got ${has ? 'none' : 'one'}. Add it to all samples or to none.`,
    { field },
  )
}

/** Truncate ids to the first token and the last ones. */
export function cutText(ids: readonly number[], length: number): readonly number[] {
  return ids.length <= length ? ids : [ids[0]!, ...ids.slice(ids.length - (length - 1))]
}

function textRows(samples: readonly SpectraSample[], longest: number, hasTurnIds: boolean) {
  const rows = samples.map(({ inputIds }) => cutText(inputIds, longest))
  const lengths = rows.map((row) => row.length)
  return {
    inputIds: padTokens(rows),
    attentionMask: lengthMask(lengths, Math.max(...lengths)),
    ...(hasTurnIds && {
      tokenTypeIds: padTokens(
        samples.map((sample) => cutText(sample.turnIds!, longest)),
        { length: Math.max(...lengths) },
      ),
    }),
  }
}

interface AudioSettings {
  hasHistoryAudio: boolean
  maxAudioLength: number
  published: boolean
  refuse: boolean
  cut: { audio: Set<string>; historyAudio: Set<string> }
}

async function audioRows(samples: readonly SpectraSample[], settings: AudioSettings) {
  const { hasHistoryAudio, maxAudioLength, published, refuse, cut } = settings
  const clips: { wave: Tensor | null; source: string; field: 'audio' | 'historyAudio' }[] = []
  for (const { audio, historyAudio, source } of samples) {
    if (hasHistoryAudio) {
      const wave = await waveOf(historyAudio!, source, 'history audio')
      clips.push({ wave, source, field: 'historyAudio' })
    }
    const wave = await waveOf(audio, source, 'audio')
    if (wave === null && refuse) {
      throw new DataError(`${source}: expected audio, got none. Set emptyAudio: 'allow' for turns without speech.`, {
        source,
      })
    }
    clips.push({ wave, source, field: 'audio' })
  }
  const lengths = clips.map(({ wave }) => Math.min(wave?.size(0) ?? 0, maxAudioLength))
  const width = published ? maxAudioLength : Math.max(MIN_SAMPLES, ...lengths)
  for (const [row, { wave, source, field }] of clips.entries()) {
    if (wave !== null && wave.size(0) > lengths[row]!) cut[field].add(source)
  }
  let { inputValues } = padClips(
    clips.map(({ wave }) => wave),
    { length: width, device: 'cpu' },
  )
  if (!inputValues.isfinite().all().item()) {
    const row = clips.findIndex((_, i) => !inputValues.select(0, i).isfinite().all().item())
    const { source, field } = clips[row]!
    throw new DataError(
      `${source}: expected finite samples in the ${field === 'audio' ? 'audio' : 'history audio'}, got NaN or infinities`,
      { source },
    )
  }
  if (published) inputValues = inputValues.to({ dtype: 'float16' }).to({ dtype: 'float32' })
  return { inputValues, audioLengths: lengthsTensor(lengths) }
}

async function waveOf(audio: SpectraAudio, source: string, what: string): Promise<Tensor | null> {
  if (audio === null) return null
  const wave = audio instanceof Tensor ? audio : await audio.read()
  if (wave.ndim !== 1 || !/^b?float/.test(wave.dtype)) {
    throw new DataError(`${source}: expected floating point [samples] as ${what}, got ${wave.dtype} [${wave.shape}]`, {
      source,
    })
  }
  return wave.size(0) === 0 ? null : wave
}

function labelsOf(samples: readonly SpectraSample[], task: Pick<SpectraTask, 'kind'>, published: boolean): Tensor {
  const labels = samples.map(({ label }) => label)
  const values = labelTensor(task, labels)
  return published && task.kind === 'regression' ? values.to({ dtype: 'float16' }).to({ dtype: 'float32' }) : values
}
