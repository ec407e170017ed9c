import { join } from 'node:path'
import { readClip, SPEECH_RATE } from '../../../audio/clip.js'
import { wavBytes } from '../../../audio/write.js'
import { writeAtomicallySync } from '../../../base/atomic.js'
import { defined } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmotionClip } from '../../../kit/emotion/clips.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { scope } from '../../../tensor/index.js'
import { videoAudio } from '../../../vision/video-audio.js'
import { shownPart } from '../causes/run.js'
import { badClipsNote } from '../data/bad-clips.js'
import { emotionAnswers } from '../evaluation/evaluate.js'
import type { TrainedEmotion } from '../training/train.js'
import { type LabeledDialog, labeledOf, withArrows } from './label.js'
import { emotionReport } from './report.js'
import type { StripMedia } from './strip.js'
import { Thumbnails } from './thumbnails.js'

/** Maximum size of the audio embedded in a page, in bytes of its data URLs. */
const MAX_AUDIO_BYTES = 24 * 2 ** 20

/**
 * Write the report of a training on its test data, or on its validation data if there is no test data.
 * @param found the same dialogs with predicted causes, which are drawn as arrows
 * @returns the path of the file
 */
export async function writeTrainingReport(
  { model, samples, results }: TrainedEmotion,
  folder: string,
  found: readonly EmotionDialog[] = [],
): Promise<string> {
  const answers = await emotionAnswers(model, shownPart(samples))
  const dialogs = withArrows(labeledOf(answers, model.config), found)
  return writeEmotionReport(
    join(folder, 'report.html'),
    dialogs,
    'Emotions of the test data',
    badClipsNote(results.badClips ?? {}),
  )
}

/**
 * Write a report with the audio and video thumbnails of the dialogs that are drawn. Media that cannot be read are left out, and
 * the page says so.
 * @param note further text for the page
 * @returns the path of the file
 */
export async function writeEmotionReport(
  file: string,
  dialogs: readonly LabeledDialog[],
  title: string,
  note = '',
): Promise<string> {
  const most = 20
  const media = new Map<LabeledDialog, StripMedia[]>()
  const thumbnails = new Thumbnails()
  const audioClips = new AudioClips()
  try {
    for (const one of dialogs.slice(0, most)) {
      const found: StripMedia[] = []
      for (const { clip } of one.dialog.utterances) {
        found.push(
          defined({ audio: clip && (await audioClips.of(clip)), thumbnail: clip && (await thumbnails.of(clip)) }),
        )
      }
      media.set(one, found)
    }
  } finally {
    await thumbnails.close()
  }
  const notes = [note === '' ? '' : `${note}.`, thumbnails.note, audioClips.note].filter((one) => one !== '').join(' ')
  const text = emotionReport(dialogs, {
    title,
    note: notes,
    mostDialogs: most,
    media: (dialog) => media.get(dialog) ?? [],
  })
  writeAtomicallySync(file, DataError, text)
  return file
}

/** Encoder of clips' audio as data URLs, up to a maximum total size. */
class AudioClips {
  #left = MAX_AUDIO_BYTES
  #failed = new Map<string, string>()

  /** Return a data URL with the audio of a clip; undefined if the clip has none, if it cannot be read, or if the page is full. */
  async of({ audio, video, start, end }: EmotionClip): Promise<string | undefined> {
    const path = audio ?? video
    if (path === undefined || this.#left <= 0 || this.#failed.has(path)) return undefined
    try {
      const data = await audioData(path, start, end)
      this.#left -= data.length
      return data
    } catch (error) {
      if (!(error instanceof DataError)) throw error
      this.#failed.set(path, error.message)
      return undefined
    }
  }

  /** A sentence about audio that could not be read, with the first reason; '' if there is none. */
  get note(): string {
    const [why] = this.#failed.values()
    if (why === undefined) return ''
    const count = this.#failed.size
    return `Audio of ${count === 1 ? '1 clip' : `${count} clips`} is missing: ${why}.`
  }
}

/** Encode a clip as a 16-bit WAV in a `data:` URL, at most 30 seconds of it. */
async function audioData(path: string, start?: number, end?: number): Promise<string> {
  return scope(async () => {
    const source = await videoAudio({ path, ...defined({ start, end }) }, { maxSeconds: 30.1 })
    const clip = await readClip(source, { longAudio: 'cut', mostSamples: 30 * SPEECH_RATE })
    const samples = (await clip.data()) as Float32Array
    return `data:audio/wav;base64,${Buffer.from(wavBytes([samples], SPEECH_RATE)).toString('base64')}`
  })
}
