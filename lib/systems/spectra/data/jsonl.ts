import { dirname } from 'node:path'
import { SPEECH_RATE } from '../../../audio/clip.js'
import { requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { type ChangesOf, objectOf, settings } from '../../../base/settings.js'
import { type JsonlDataset, jsonlDataset } from '../../../data/jsonl-dataset.js'
import { ClipReader } from '../../../kit/clip.js'
import { BadRecords } from '../../../kit/records.js'
import { completeTask, labelNumber } from '../../../kit/task.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/tokenizer.js'
import type { SpectraTask } from '../evaluation/task.js'
import { SPECTRA_AUDIO_LENGTH } from './collate.js'
import { type CheckedRecord, type Clip, checkRecord } from './record.js'
import type { SpectraAudio, SpectraSample } from './sample.js'
import { SpectraDialogText, TEXT_SETTINGS } from './text.js'

// A little more than the network uses, to detect truncation, and to keep the resampler's edge out of the clip.
const MARGIN_SECONDS = 0.1

const JSONL_SETTINGS = settings({
  task: { type: objectOf<SpectraTask>(), required: true },
  tokenizer: { type: objectOf<Tokenizer>(), required: true },
  /** Action for a bad record: 'stop' throws; 'skip' leaves it out and counts it. */
  onBadRecord: { type: ['stop', 'skip'], default: 'stop' },
  /** 'memory' keeps all clips in memory; 'file' reads each clip when a batch needs it, and detects broken clips only then. */
  audio: { type: ['memory', 'file'], default: 'memory' },
  /** Maximum samples of a clip. */
  maxAudioLength: { type: 'integer', min: 1, default: SPECTRA_AUDIO_LENGTH },
  /** Action for other sample rates or several channels: 'refuse' makes a bad record. */
  otherAudio: { type: ['convert', 'refuse'], default: 'convert' },
  /**
   * Whether to use previous turns: their texts, and the clip of the last one. Default: if any record has them; records without then have
   * an empty history.
   */
  history: { type: 'boolean' },
  ...TEXT_SETTINGS.table,
})

/** @interface */
export type ReadSpectraJsonlOptions = ChangesOf<typeof JSONL_SETTINGS.table>

/** A sample with speaker and split of its record. */
export interface SpectraJsonlSample extends SpectraSample {
  readonly speaker: string | undefined
  readonly split: 'train' | 'valid' | 'test' | undefined
}

export interface SpectraJsonlData {
  samples: SpectraJsonlSample[]
  /** The task with its classes: the given ones, or the sorted labels of the data. */
  task: SpectraTask
  /** Whether samples have turn ids and history audio. */
  history: boolean
  /** Number of records left out by `onBadRecord: 'skip'`, and the first hundred errors. */
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Read your own data: a file with one JSON record per line (see {@link SpectraJsonlRecord}) and audio files in any format that `readAudio`
 * supports, for one of the four tasks or your own task. All records are checked before it returns.
 *
 * Waveforms are tensors of the current scope, float32 [samples] at 16 kHz.
 *
 * @throws DataError with `file` and `line` for a bad record: invalid JSON, an unknown or missing field, a label outside of the task's
 * labels, or an audio file that is missing, broken, empty or contains NaN
 */
export async function readSpectraJsonl(file: string, options: ReadSpectraJsonlOptions): Promise<SpectraJsonlData> {
  const where = 'readSpectraJsonl'
  requireString(where, 'file', file)
  const read = JSONL_SETTINGS.read(where, options)
  const { task, tokenizer, onBadRecord, audio, otherAudio, maxAudioLength, history } = read
  const text = new SpectraDialogText(tokenizer, TEXT_SETTINGS.changesIn(read))
  const lines = await jsonlDataset(file, { onBadRecord })
  const bad = new BadRecords(onBadRecord)
  bad.addAll(lines.badRecords, lines.badRecordErrors)
  const records = await recordsOf(file, lines, bad)
  const complete = completeTask(task, trainingLabels(records), file)
  const context = history ?? records.some(({ record }) => record.history !== undefined || Boolean(record.historyAudio))
  const maxSeconds = maxAudioLength / SPEECH_RATE + MARGIN_SECONDS
  const reader = new ClipReader({ audioRoot: dirname(file), otherAudio, maxSeconds })
  const clips = (clip: Clip, field: string, source: string) =>
    audio === 'memory'
      ? reader.read(clip, { field })
      : { read: () => reader.read(clip, { record: source, field, fields: { source } }) }
  const samples: SpectraJsonlSample[] = []
  await scope(async () => {
    // In parallel: readAudio waits for the disk and, for compressed files, for its threads.
    for (let i = 0; i < records.length; i += 16) {
      const some = records.slice(i, i + 16)
      const results = await Promise.allSettled(
        some.map((one) => sampleOf(one, { file, text, clips, context, task: complete })),
      )
      for (const [k, result] of results.entries()) {
        if (result.status === 'fulfilled') samples.push(result.value)
        else bad.add(result.reason, { file, line: some[k]!.line })
      }
    }
    return samples.flatMap(({ audio, historyAudio }) => [audio, historyAudio])
  })
  if (samples.length === 0) {
    throw new DataError(`${file}: expected at least one usable record, got none`, { file, badRecords: bad.count })
  }
  return { samples, task: complete, history: context, badRecords: bad.count, badRecordErrors: bad.errors }
}

interface Line {
  record: CheckedRecord
  line: number
}

async function recordsOf(file: string, lines: JsonlDataset<unknown>, bad: BadRecords): Promise<Line[]> {
  const records: Line[] = []
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines.index.lines[i]!
    const value = await lines.get(i)
    try {
      records.push({ record: checkRecord(value), line })
    } catch (error) {
      bad.add(error, { file, line })
    }
  }
  return records
}

/** Return the labels of the training records, or of all records if none has a split. */
function trainingLabels(lines: readonly Line[]): (number | string)[] {
  const training = lines.filter(({ record }) => record.split === undefined || record.split === 'train')
  return (training.length > 0 ? training : lines).map(({ record }) => record.label)
}

interface SampleContext {
  file: string
  text: SpectraDialogText
  clips: (clip: Clip, field: string, source: string) => SpectraAudio | Promise<Tensor>
  context: boolean
  task: SpectraTask
}

async function sampleOf(
  { record, line }: Line,
  { file, text, clips, context, task }: SampleContext,
): Promise<SpectraJsonlSample> {
  const source = `${file}, line ${line}`
  const label = labelNumber(record.label, task)
  const audio = record.audio === null ? null : await clips(record.audio, 'audio', source)
  const { speaker, split } = record
  if (!context) return { audio, inputIds: text.utterance(record.text).inputIds, label, source, speaker, split }
  const historyAudio = record.historyAudio ? await clips(record.historyAudio, 'historyAudio', source) : null
  return { audio, ...text.dialog(record.history ?? [], record.text), historyAudio, label, source, speaker, split }
}
