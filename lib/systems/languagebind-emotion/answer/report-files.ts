import { join } from 'node:path'
import { readClip, SPEECH_RATE } from '../../../audio/clip.js'
import { wavBytes } from '../../../audio/write.js'
import { writeAtomicallySync } from '../../../base/atomic.js'
import { defined } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { scope } from '../../../tensor/index.js'
import { emotionAnswers } from '../evaluation/evaluate.js'
import type { TrainedEmotion } from '../training/train.js'
import { type LabelledDialog, labelledOf } from './label.js'
import { emotionReport } from './report.js'
import type { StripMedia } from './strip.js'
import { Thumbnails } from './thumbnails.js'

/** Bytes of sound that a page may hold; what is more is only named. */
const MOST_SOUND = 24 * 2 ** 20

/** Writes the report of a training on its test data, or where there is none its validation data. @returns the file */
export async function writeTrainingReport({ model, samples }: TrainedEmotion, folder: string): Promise<string> {
  const part = samples.test.length > 0 ? samples.test : samples.valid.length > 0 ? samples.valid : samples.train
  const dialogs = labelledOf(await emotionAnswers(model, part), model.config)
  return writeEmotionReport(join(folder, 'report.html'), dialogs, 'Emotions of the test data')
}

/** Writes a report with the sounds of the dialogs that are drawn, and pictures of their films. @returns the file */
export async function writeEmotionReport(
  file: string,
  dialogs: readonly LabelledDialog[],
  title: string,
): Promise<string> {
  const most = 20
  const media = new Map<LabelledDialog, StripMedia[]>()
  const thumbnails = new Thumbnails()
  let left = MOST_SOUND
  try {
    for (const one of dialogs.slice(0, most)) {
      const found: StripMedia[] = []
      for (const { clip } of one.dialog.utterances) {
        const path = clip?.audio ?? clip?.video
        const sound = path === undefined || left <= 0 ? undefined : await soundData(path, clip?.start, clip?.end)
        left -= sound?.length ?? 0
        found.push(defined({ sound, thumbnail: clip && (await thumbnails.of(clip)) }))
      }
      media.set(one, found)
    }
  } finally {
    await thumbnails.close()
  }
  const { note } = thumbnails
  const text = emotionReport(dialogs, { title, note, mostDialogs: most, media: (dialog) => media.get(dialog) ?? [] })
  writeAtomicallySync(file, DataError, text)
  return file
}

/** A clip as a WAV of 16 bits in a `data:` address, at most half a minute of it. */
async function soundData(path: string, start?: number, end?: number): Promise<string> {
  return scope(async () => {
    const clip = await readClip(
      { path, ...defined({ start, end }) },
      { longAudio: 'cut', mostSamples: 30 * SPEECH_RATE },
    )
    const samples = (await clip.data()) as Float32Array
    return `data:audio/wav;base64,${Buffer.from(wavBytes([samples], SPEECH_RATE)).toString('base64')}`
  })
}
