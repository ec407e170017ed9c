import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { chunksOf, utf8, withoutMark } from '../../../files/text.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { groupDialogs, type UsdmDialogs, type UsdmSpokenTurn } from '../data/dialogs.js'

export interface ReadDailyTalkOptions {
  /** What a line or dialog that cannot be used does: 'stop' (default) throws; 'skip' leaves the dialog out and counts it. */
  onBadRecord?: OnBadRecord
}

/** Dialogs of DailyTalk, and what could not be used. */
export interface DailyTalk extends UsdmDialogs {
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Reads the phone files of DailyTalk (Lee et al. 2023, https://arxiv.org/abs/2207.01063), `train_phone.txt` or `val_phone.txt` of
 * https://github.com/keonlee9420/DailyTalk: lines of `0_1_d23|1|{phones}|the text|emotion`. A clip is
 * `<dataDir>/<dialog>/<id>.wav`.
 * @param dataDir the folder `data` of the corpus, or the one that holds it
 * @throws DataError with `file` and `line` for a line that has not five fields, a name that does not say its turn, a turn that
 * is missing, and a clip that is not there; ConfigError where there is no folder
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
    const silent = turns.find(({ audio }) => !existsSync(audio.path))
    if (silent) bad.add(noClip(silent))
    return !silent
  })
  return { ...grouped, dialogs, badRecords: bad.count, badRecordErrors: bad.errors }
}

/** The same without a look at the clips, for those who have units already. @internal */
export async function readDailyTalkTurns(phoneFile: string, root = ''): Promise<UsdmSpokenTurn[]> {
  return readTurns(phoneFile, root, new BadRecords('stop'))
}

async function readTurns(phoneFile: string, root: string, bad: BadRecords): Promise<UsdmSpokenTurn[]> {
  const parts: Buffer[] = []
  for await (const part of chunksOf(phoneFile, MOST_BYTES)) parts.push(part)
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
  if (turns.length === 0) throw new DataError(`${phoneFile} holds no utterance`, { file: phoneFile })
  return turns
}

const MOST_BYTES = 1 << 28

function turnOf(content: string, place: { file: string; line: number }, root: string): UsdmSpokenTurn {
  const fault = (what: string) => new DataError(`${place.file}, line ${place.line}: ${what}`, { ...place })
  const fields = content.split('|')
  if (fields.length !== 5) {
    throw fault(`there are ${fields.length} fields, expected 5: id|speaker|{phones}|text|emotion`)
  }
  const [id = '', speaker = '', , text = ''] = fields
  const named = /^(\d+)_(\d+)_d(\d+)$/.exec(id)
  if (!named) throw fault(`${JSON.stringify(id)} is no id: utterance_speaker_ddialog, such as 0_1_d23`)
  const [, turn, said, number] = named as unknown as [string, string, string, string]
  if (said !== speaker) throw fault(`${id} is of speaker ${said}, and its field says ${JSON.stringify(speaker)}`)
  if (text.trim() === '') throw fault(`${id} has no text`)
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
  new DataError(`${file}, line ${line}: there is no clip ${audio.path} of turn ${turn} of dialog ${dialog}`, {
    file,
    line,
    clip: audio.path,
  })

/** Where the clips' folders are: the folder that was named, or `data` in it. */
function clipFolder(dataDir: string): string {
  const isFolder = (path: string) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  if (!isFolder(dataDir)) throw new ConfigError(`There is no folder ${dataDir} of DailyTalk`, { argument: 'dataDir' })
  const inner = join(dataDir, 'data')
  return isFolder(inner) ? inner : dataDir
}
