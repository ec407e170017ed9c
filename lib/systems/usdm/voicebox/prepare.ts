import { join } from 'node:path'
import { argumentError } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, instanceOf, unchecked } from '../../../base/settings.js'
import { Random } from '../../../data/random.js'
import { BadRecords } from '../../../kit/records.js'
import { UnitExtractor } from '../../../models/units/unit-extractor.js'
import { audioFiles, type ExtractUnitsOptions, type NamedClip, UnitFolder } from '../../../models/units/unit-folder.js'
import { VOICEBOX_DATA_SETTINGS } from '../configuration/settings.js'
import { type VoiceboxRecord, writeVoiceboxFilelist } from './filelist.js'

const SETTINGS = VOICEBOX_DATA_SETTINGS.extend({
  extractor: { type: instanceOf(UnitExtractor), required: true },
  extract: { type: unchecked<ExtractUnitsOptions>(), default: {} },
})

/** Options of `prepareVoicebox`. @interface */
export type PrepareVoiceboxOptions = ChangesOf<typeof SETTINGS.table>

export interface PreparedVoicebox {
  file: string
  clips: number
  badRecords: number
  badRecordErrors: DataError[]
}

/** Clips per group with `onBadRecord: 'skip'`. */
const GROUP = 512

/**
 * Write the file list that a `UnitVoicebox` is trained on: a line `audio|units|durations` for each audio file in a folder and its
 * subfolders, shuffled by the seed. An interrupted run continues, and the same clips give the same bytes.
 * @throws DataError naming the clip that cannot be used; ConfigError if there are no audio files
 */
export async function prepareVoicebox(options: PrepareVoiceboxOptions): Promise<PreparedVoicebox> {
  const where = 'prepareVoicebox'
  const values = SETTINGS.read(where, options)
  const { extractor, data, name, split, output, seed, onBadRecord, extract } = values
  for (const [key, value] of Object.entries({ name, split })) {
    if (value === '' || /[/\\]|^\.\.?$/.test(value))
      throw argumentError(where, key, 'the name of a folder or file', value)
  }
  const unitFolder = values.unitFolder ?? join(output, name, `${split}-units`)
  // Names include the extension, so that clips that differ only in it have separate units.
  const clips = (await audioFiles(where, data)).map(
    (path): NamedClip => ({ name: path.replaceAll('\\', '/'), audio: join(data, path) }),
  )
  const folder = await UnitFolder.open(unitFolder, extractor)
  const bad = new BadRecords(onBadRecord)
  const size = onBadRecord === 'stop' ? clips.length : GROUP
  for (let from = 0; from < clips.length; from += size) {
    await fill(folder, extractor, clips.slice(from, from + size), extract, bad)
  }
  const usable = clips.filter((clip) => folder.has(clip.name))
  if (usable.length === 0) {
    throw new ConfigError(`${where}: expected usable clips in ${data}, got none.`, { argument: 'data' })
  }
  const file = join(output, name, `${split}.txt`)
  await writeVoiceboxFilelist(file, recordsOf(folder, new Random(seed).shuffle(usable)))
  return { file, clips: usable.length, badRecords: bad.count, badRecordErrors: bad.errors }
}

async function* recordsOf(folder: UnitFolder, clips: readonly NamedClip[]): AsyncGenerator<VoiceboxRecord> {
  for (const { name, audio } of clips) yield { audio: audio as string, units: await folder.read(name) }
}

/** Extract the units of clips. With 'skip', a group that fails is extracted clip by clip, to find the bad one. */
async function fill(
  folder: UnitFolder,
  extractor: UnitExtractor,
  clips: readonly NamedClip[],
  extract: ExtractUnitsOptions,
  bad: BadRecords,
): Promise<void> {
  try {
    await folder.fill(extractor, clips, extract)
  } catch (error) {
    if (bad.policy === 'stop' || !(error instanceof DataError)) throw error
    const { progress: _, ...quiet } = extract
    for (const clip of clips) await folder.fill(extractor, [clip], quiet).catch((cause) => bad.add(cause))
  }
}
