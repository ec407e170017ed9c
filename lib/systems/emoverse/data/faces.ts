import { existsSync, readdirSync } from 'node:fs'
import { join, sep } from 'node:path'
import { requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import { readCsvStream } from '../../../files/csv/csv.js'

/**
 * Phrases for action units of the face (Ekman and Friesen's FACS): those that OpenFace measures and that are related to emotions.
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

const SETTINGS = settings({
  /** Lowest intensity of a named unit, on OpenFace's scale from 0 to 5. Default 1. */
  least: { type: 'number', default: 1 },
  /** Lowest OpenFace confidence of a frame. Default 0.7. */
  confidence: { type: 'number', default: 0.7 },
  /** Phrase of each unit. Default {@link ACTION_UNITS}. */
  phrases: { type: unchecked<Readonly<Record<string, string>>>(), default: ACTION_UNITS },
})

/** Options of `readFaceExpressions`. @interface */
export type ReadFaceOptions = ChangesOf<typeof SETTINGS.table>

export interface FaceExpressions {
  /** Phrases of the frame with the largest sum of intensities (the first, if several are equal), strongest unit first. */
  phrases: string[]
  /** Number of that frame in the file; undefined if no frame has a face. */
  frame: number | undefined
}

/**
 * Read a facial expression from a table of OpenFace (https://github.com/TadasBaltrusaitis/OpenFace): a row for each frame, with columns
 * such as `AU04_r` for the intensity of a unit.
 * @throws DataError for a table without such columns, or for an intensity that is not a number, naming the row
 */
export async function readFaceExpressions(file: string, options: ReadFaceOptions = {}): Promise<FaceExpressions> {
  const where = 'readFaceExpressions'
  requireString(where, 'file', file)
  const { least, confidence, phrases } = SETTINGS.read(where, options)
  let best: { frame: number; total: number; units: [name: string, strength: number][] } | undefined
  let number = 0
  for await (const raw of readCsvStream(file)) {
    number += 1
    // OpenFace writes a space after each comma.
    const row = new Map(Object.entries(raw).map(([name, value]) => [name.trim(), value.trim()]))
    const units = Object.keys(phrases).flatMap((name): [string, number][] => {
      const value = row.get(`${name}_r`)
      return value === undefined ? [] : [[name, Number(value)]]
    })
    if (units.length === 0)
      throw new DataError(
        `${file}: expected a column such as AU01_r, got ${[...row.keys()].slice(0, 5).join(', ') || 'none'}. Use a table of OpenFace with action units.`,
        { file },
      )
    const wrong = units.find(([, strength]) => !(strength >= 0))
    if (wrong) {
      const value = row.get(`${wrong[0]}_r`)
      throw new DataError(`${file}, row ${number}: expected ${wrong[0]}_r of at least 0, got ${value}.`, {
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

/** OpenFace tables: a folder with `VIDEO/CLIP.csv` or `VIDEO_CLIP.csv`, or paths by clip id. */
export type FaceTables = string | Readonly<Record<string, string>>

/** Return the path of a clip's table, or undefined. */
export function faceTable(faces: FaceTables, id: string): string | undefined {
  if (typeof faces !== 'string') return Object.hasOwn(faces, id) ? faces[id] : undefined
  const names = [`${id}.csv`, `${id.replaceAll('/', '_')}.csv`]
  return names.map((name) => join(faces, name)).find((path) => existsSync(path))
}

/** List all tables, with their ids: the keys, or the paths in the folder without extension, with `/` as separator. */
export function facesIn(faces: FaceTables): { id: string; path: string }[] {
  if (typeof faces !== 'string') return Object.entries(faces).map(([id, path]) => ({ id, path }))
  let names: string[]
  try {
    names = readdirSync(faces, { recursive: true }) as string[]
  } catch (cause) {
    throw new DataError(`${faces}: expected a folder of OpenFace tables, got ${(cause as Error).message}.`, {
      file: faces,
      cause,
    })
  }
  return names
    .filter((name) => name.endsWith('.csv'))
    .sort()
    .map((name) => ({ id: name.slice(0, -'.csv'.length).replaceAll(sep, '/'), path: join(faces, name) }))
}
