import { fitSamples } from '../../../audio/clip.js'
import { DataError } from '../../../base/errors.js'
import { type ChangesOf, functionOf, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import { ClipReader, joinSamples } from '../../../kit/clip.js'
import { scope, type Tensor, tensor } from '../../../tensor/index.js'
import { SALMONN_LEAST_SAMPLES, SALMONN_RATE } from '../network/clips.js'
import { SALMONN_FIT } from './clips.js'
import type { SalmonnClip } from './collate.js'
import type { SalmonnEntry } from './entry.js'

export const AUDIO_SETTINGS = settings({
  /** Handling of several clips in an entry: 'joined' into one, or 'separate', with a speech block for each. */
  clips: { type: ['joined', 'separate'], default: 'joined' },
  /** Silence between joined clips in seconds. */
  gapSeconds: { type: 'number', below: 3600, default: 0.1 },
  /** Channel of multichannel files: their mean (default), or an index from 0. */
  channels: { type: unchecked<'mean' | number>() },
  /** Handling of more than 30 s: 'windows' uses all of it (default), 'cut' the beginning (default of compat 'published'). */
  longAudio: { type: ['error', 'cut', 'windows'] },
  /** 'published': use channel 0, pad clips to at least 1 s, and cut them after 30 s. */
  compat: { type: ['published'] },
  /** Called for each entry that loses audio. Default: one process warning, for the first. */
  onCut: { type: functionOf<(message: string) => void>() },
})

/** @interface */
export type SalmonnAudioOptions = ChangesOf<typeof AUDIO_SETTINGS.table>

/** Entries that lost audio by `longAudio: 'cut'`. */
export interface SalmonnCuts {
  count: number
  seconds: number
  /** Ids of the first 100. */
  ids: string[]
}

/** Reader of the clips of entries, in any format and sample rate, as 16 kHz mono. */
export class SalmonnAudioReader {
  readonly cuts: SalmonnCuts = { count: 0, seconds: 0, ids: [] }
  readonly #options: Required<Omit<ValuesOf<typeof AUDIO_SETTINGS.table>, 'compat' | 'onCut'>> & {
    leastSamples: number
  }
  readonly #reader: ClipReader
  readonly #onCut: (message: string) => void
  readonly #counted = new Set<string>()

  constructor(options: SalmonnAudioOptions = {}) {
    const { compat, clips, gapSeconds, onCut, ...read } = AUDIO_SETTINGS.read('SalmonnAudioReader', options)
    const published = compat === 'published'
    const { channels = published ? 0 : 'mean', longAudio = published ? 'cut' : 'windows' } = read
    const leastSamples = published ? SALMONN_RATE : SALMONN_LEAST_SAMPLES
    this.#options = { clips, gapSeconds, channels, longAudio, leastSamples }
    this.#reader = new ClipReader({ channels })
    this.#onCut = onCut ?? ((message) => this.cuts.count === 1 && process.emitWarning(message))
  }

  get separate(): boolean {
    return this.#options.clips === 'separate'
  }

  /**
   * Return the samples of each speech block of an entry.
   * @throws DataError naming entry and file
   */
  read(entry: SalmonnEntry): Promise<SalmonnClip[]> {
    return scope(async () => {
      const clips: Tensor[] = []
      const owner = { record: `${entry.source} (${entry.id})`, fields: { item: entry.source } }
      for (const path of entry.audio) clips.push(await this.#reader.read({ path }, owner))
      // Samples are typed arrays, which can move between threads and need no disposal.
      return Promise.all(this.#blocks(clips, entry).map((clip) => clip.data() as Promise<SalmonnClip>))
    })
  }

  /** Do the same as `read` with clips in memory. */
  fit(clips: readonly SalmonnClip[], entry: Pick<SalmonnEntry, 'id' | 'source' | 'trailingGap'>): SalmonnClip[] {
    return scope(() => {
      const samples = clips.map((clip) => tensor(clip, { device: 'cpu' }))
      return this.#blocks(samples, entry).map((clip) => clip.dataSync() as SalmonnClip)
    })
  }

  #blocks(clips: readonly Tensor[], entry: Pick<SalmonnEntry, 'id' | 'source' | 'trailingGap'>): Tensor[] {
    const { gapSeconds, longAudio, leastSamples } = this.#options
    const gap = Math.round(gapSeconds * SALMONN_RATE)
    const several = clips.length > 1 || entry.trailingGap
    const blocks = this.separate || !several ? clips : [joinSamples(clips, gap, entry.trailingGap)]
    let lost = 0
    const fitting = blocks.map((clip) => {
      try {
        const fitted = fitSamples(clip, { ...SALMONN_FIT, leastSamples, longAudio })
        lost += fitted.lost
        return fitted.samples
      } catch (cause) {
        if (!(cause instanceof DataError)) throw cause
        throw new DataError(`${entry.source} (${entry.id}): ${cause.message}`, { item: entry.source, cause })
      }
    })
    if (lost > 0) this.#count(entry, lost / SALMONN_RATE)
    return fitting
  }

  #count({ id, source }: Pick<SalmonnEntry, 'id' | 'source'>, seconds: number): void {
    if (this.#counted.has(source)) return
    this.#counted.add(source)
    this.cuts.count += 1
    this.cuts.seconds += seconds
    if (this.cuts.ids.length < 100) this.cuts.ids.push(id)
    this.#onCut(
      `${source} (${id}): the last ${seconds.toFixed(1)} s of its audio are cut off. Use longAudio: 'windows' for all of it, or clips: 'separate' for 30 s of each turn`,
    )
  }
}
