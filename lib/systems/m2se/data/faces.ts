import { existsSync, readdirSync } from 'node:fs'
import { join, sep } from 'node:path'
import { requireNumber, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { readCsvStream } from '../../../files/csv/csv.js'

/**
 * What the action units of faces are called (Ekman and Friesen's FACS), of those that OpenFace measures and that have to do with
 * emotions.
 */
export const ACTION_UNITS: Readonly<Record<string, string>> = {
  AU01: 'Inner brows raised',
  AU02: 'Outer brows raised',
  AU04: 'Brows lowered',
  AU05: 'Upper lids raised',
  AU06: 'Cheeks raised',
  AU07: 'Lids tightened',
  AU09: 'Nose wrinkled',
  AU10: 'Upper lip raised',
  AU12: 'Lip corners pulled up',
  AU14: 'Cheeks dimpled',
  AU15: 'Lip corners pulled down',
  AU17: 'Chin raised',
  AU20: 'Lips stretched',
  AU23: 'Lips tightened',
  AU25: 'Lips parted',
  AU26: 'Jaw dropped',
}

export interface ReadFaceOptions {
  /** Units below it, on OpenFace's scale from 0 to 5, are not named. Default 1. */
  least?: number
  /** Frames of which OpenFace is less sure are passed over. Default 0.7. */
  confidence?: number
  /** The phrase of each unit. Default {@link ACTION_UNITS}. */
  phrases?: Readonly<Record<string, string>>
}

export interface FaceExpressions {
  /** Of the frame in which the units together are strongest, the first of several as strong; the strongest first. */
  phrases: string[]
  /** The number of that frame as the file counts; undefined where no frame has a face. */
  frame: number | undefined
}

/**
 * What a face does, out of a table of OpenFace (https://github.com/TadasBaltrusaitis/OpenFace): a row for each frame, with columns
 * such as `AU04_r` for the intensity of a unit.
 * @throws DataError for a table without such columns, or an intensity that is no number, naming the row
 */
export async function readFaceExpressions(file: string, options: ReadFaceOptions = {}): Promise<FaceExpressions> {
  const where = 'readFaceExpressions'
  requireString(where, 'file', file)
  requireOptions(where, options, ['least', 'confidence', 'phrases'])
  const { least = 1, confidence = 0.7, phrases = ACTION_UNITS } = options
  requireNumber(where, 'least', least, { least: 0 })
  requireNumber(where, 'confidence', confidence, { least: 0 })
  let best: { frame: number; total: number; units: [name: string, strength: number][] } | undefined
  let number = 0
  for await (const raw of readCsvStream(file)) {
    number += 1
    // OpenFace puts a blank behind each comma.
    const row = new Map(Object.entries(raw).map(([name, value]) => [name.trim(), value.trim()]))
    const units = Object.keys(phrases).flatMap((name): [string, number][] => {
      const value = row.get(`${name}_r`)
      return value === undefined ? [] : [[name, Number(value)]]
    })
    if (units.length === 0) throw new DataError(`${file} has no column AUxx_r of a unit that has a phrase`, { file })
    const wrong = units.find(([, strength]) => !(strength >= 0))
    if (wrong) {
      throw new DataError(`${file}, row ${number}: ${wrong[0]}_r is ${row.get(`${wrong[0]}_r`)}, no intensity`, {
        file,
        row: number,
      })
    }
    const sure = Number(row.get('confidence') ?? 1) >= confidence && row.get('success') !== '0'
    const total = units.reduce((sum, [, strength]) => sum + strength, 0)
    if (sure && (best === undefined || total > best.total)) {
      best = { frame: Number(row.get('frame') ?? number), total, units }
    }
  }
  const strong = (best?.units ?? []).filter(([, strength]) => strength >= least).sort(([, a], [, b]) => b - a)
  return { phrases: strong.map(([name]) => phrases[name] as string), frame: best?.frame }
}

/** Tables of faces: a folder with `VIDEO/CLIP.csv` or `VIDEO_CLIP.csv`, or files by the id of a clip. */
export type FaceTables = string | Readonly<Record<string, string>>

/** The table of a clip, where there is one. */
export function faceTable(faces: FaceTables, id: string): string | undefined {
  if (typeof faces !== 'string') return Object.hasOwn(faces, id) ? faces[id] : undefined
  const names = [`${id}.csv`, `${id.replaceAll('/', '_')}.csv`]
  return names.map((name) => join(faces, name)).find((path) => existsSync(path))
}

/** All tables, by ids or by what their files are called: the path in the folder without its ending, with `/` between. */
export function facesIn(faces: FaceTables): { id: string; path: string }[] {
  if (typeof faces !== 'string') return Object.entries(faces).map(([id, path]) => ({ id, path }))
  let names: string[]
  try {
    names = readdirSync(faces, { recursive: true }) as string[]
  } catch (cause) {
    throw new DataError(`${faces}: there is no folder of faces to read: ${(cause as Error).message}`, {
      file: faces,
      cause,
    })
  }
  return names
    .filter((name) => name.endsWith('.csv'))
    .sort()
    .map((name) => ({ id: name.slice(0, -'.csv'.length).replaceAll(sep, '/'), path: join(faces, name) }))
}
