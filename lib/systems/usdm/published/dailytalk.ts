import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { chunksOf, utf8, withoutMark } from '../../../files/text.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { groupDialogs, type UsdmDialogs, type UsdmSpokenTurn } from '../data/dialogs.js'

export interface ReadDailyTalkOptions {
  /** Action for a line or dialog that cannot be used: 'stop' (default) throws; 'skip' drops the dialog and counts it. */
  onBadRecord?: OnBadRecord
}

/** Dialogs of DailyTalk, and the errors of records that cannot be used. */
export interface DailyTalk extends UsdmDialogs {
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Read the phone files of DailyTalk (Lee et al. 2023, https://arxiv.org/abs/2207.01063), `train_phone.txt` or `val_phone.txt` of
 * https://github.com/keonlee9420/DailyTalk: lines of `0_1_d23|1|{phones}|the text|emotion`. A clip is
 * `<dataDir>/<dialog>/<id>.wav`.
 * @param dataDir the corpus's folder `data`, or the folder that contains it
 * @throws DataError with `file` and `line` for a line without five fields, a malformed id, a missing turn, and a missing clip;
 * ConfigError if the folder does not exist
 */
export async function readDailyTalk(
  phoneFile: string,
  dataDir: string,
  options: ReadDailyTalkOptions = {},
): Promise<DailyTalk> {
  const where = 'readDailyTalk'
  requireString(where, 'phoneFile', phoneFile)
  requireString(where, 'dataDir', dataDir)
  requireOptions(where, options, ['onBadRecord'])
  const { onBadRecord = 'stop' } = options
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const bad = new BadRecords(onBadRecord)
  const root = clipFolder(dataDir)
  const turns = await readTurns(phoneFile, root, bad)
  const grouped = groupDialogs(turns, bad)
  const dialogs = grouped.dialogs.filter(({ turns }) => {
    const missing = turns.find(({ audio }) => !existsSync(audio.path))
    if (missing) bad.add(noClip(missing))
    return !missing
  })
  return { ...grouped, dialogs, badRecords: bad.count, badRecordErrors: bad.errors }
}

/** Read turns as {@link readDailyTalk}, without checking that the clips exist. @internal */
export async function readDailyTalkTurns(phoneFile: string, root = ''): Promise<UsdmSpokenTurn[]> {
  return readTurns(phoneFile, root, new BadRecords('stop'))
}

async function readTurns(phoneFile: string, root: string, bad: BadRecords): Promise<UsdmSpokenTurn[]> {
  const parts: Buffer[] = []
  for await (const part of chunksOf(phoneFile, MAX_BYTES)) parts.push(part)
  const lines = utf8(withoutMark(Buffer.concat(parts)), phoneFile).split('\n')
  const turns: UsdmSpokenTurn[] = []
  for (const [i, content] of lines.entries()) {
    const text = content.replace(/\r$/, '')
    if (text === '') continue
    try {
      turns.push(turnOf(text, { file: phoneFile, line: i + 1 }, root))
    } catch (error) {
      bad.add(error)
    }
  }
  if (turns.length === 0) {
    throw new DataError(`${phoneFile}: expected at least one utterance, got none`, { file: phoneFile })
  }
  return turns
}

const MAX_BYTES = 1 << 28

function turnOf(content: string, place: { file: string; line: number }, root: string): UsdmSpokenTurn {
  const fault = (what: string) => new DataError(`${place.file}, line ${place.line}: ${what}`, { ...place })
  const fields = content.split('|')
  if (fields.length !== 5) throw fault(`expected 5 fields, id|speaker|{phones}|text|emotion, got ${fields.length}`)
  const [id = '', speaker = '', , text = ''] = fields
  const idMatch = /^(\d+)_(\d+)_d(\d+)$/.exec(id)
  if (!idMatch) throw fault(`expected an id <turn>_<speaker>_d<dialog>, such as 0_1_d23, got ${JSON.stringify(id)}`)
  const [, turn, idSpeaker, number] = idMatch as unknown as [string, string, string, string]
  if (idSpeaker !== speaker) {
    throw fault(`${id}: expected the speaker of the id, ${idSpeaker}, got ${JSON.stringify(speaker)}`)
  }
  if (text.trim() === '') throw fault(`${id}: expected a text, got none`)
  return {
    dialog: `d${number}`,
    turn: Number(turn),
    speaker,
    text,
    audio: { path: join(root, number, `${id}.wav`) },
    clip: `${number}/${id}`,
    ...place,
  }
}

const noClip = ({ audio, file, line, dialog, turn }: UsdmSpokenTurn): DataError =>
  new DataError(
    `${file}, line ${line}: expected the clip of dialog ${dialog}, turn ${turn}: ${audio.path} does not exist`,
    {
      file,
      line,
      clip: audio.path,
    },
  )

/** Return the folder of the clips: the given folder, or `data` in it. */
function clipFolder(dataDir: string): string {
  const isFolder = (path: string) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  if (!isFolder(dataDir)) {
    throw new ConfigError(`readDailyTalk: expected the folder of DailyTalk, got ${dataDir}, which does not exist.`, {
      argument: 'dataDir',
    })
  }
  const inner = join(dataDir, 'data')
  return isFolder(inner) ? inner : dataDir
}
