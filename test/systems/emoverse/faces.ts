import type { SwiftRecord } from '../../../lib/systems/emoverse/index.js'
import { ppm } from './tiny.js'

/** What a face does, and the answers that name it. */
export const FACES = {
  'Joy.': { sentiment: 'Pos.', mouth: 1, brows: 0, open: 0 },
  'Sadness.': { sentiment: 'Neg.', mouth: -1, brows: 1, open: 0 },
  'Anger.': { sentiment: 'Neg.', mouth: 0, brows: -1, open: 0 },
  'Surprise.': { sentiment: 'Pos.', mouth: 0, brows: 0, open: 1 },
} as const
export type Face = keyof typeof FACES
export const FACE_LABELS = Object.keys(FACES) as Face[]

/** What people say in MELD's training data, each in at least three of the four moods. */
export const MELD_WORDS = ['Hey!', 'What?!', 'No!', 'Huh?', 'Come on!'] as const

/** A face of 28 x 28 pixels, drawn by mouth and brows, in one of some places and colours. */
export function face(label: Face, draw: (count: number) => number): Buffer {
  const { mouth, brows, open } = FACES[label]
  const [left, top, skin] = [13 + draw(2), 13 + draw(2), 170 + 10 * draw(4)]
  return ppm(28, 28, (x, y) => {
    const [u, v] = [x - left, y - top]
    if (u * u + v * v > 150) return [20, 30, 60]
    const eye = Math.abs(Math.abs(u) - 5) < 1.5 && Math.abs(v + 3) < 1
    // Inner ends up for sadness, down for anger.
    const brow = Math.abs(u) > 2 && Math.abs(u) < 8 && Math.abs(v + 7 - 0.5 * brows * (Math.abs(u) - 5)) < 1
    const lips = open ? Math.abs(u * u + (v - 6) * (v - 6) - 9) < 5 : Math.abs(u) < 6 && Math.abs(v - 6 - mouth * (2 - (u * u) / 9)) < 1
    return eye || brow || lips ? [30, 10, 10] : [skin, skin - 40, skin - 70]
  }) // biome-ignore format: one line
}

/** Numbers below `count`, the same for the same seed. */
export function drawing(seed: number): (count: number) => number {
  let state = seed
  return (count) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * count)
  }
}

export interface FaceData {
  /** Files of pictures by name. */
  files: Record<string, Buffer>
  /** What is asked about their sentiment, and about their emotion: words say nothing of either. */
  sentiment: SwiftRecord[]
  emotion: SwiftRecord[]
}

/** Faces and what is asked about them. */
export function faceData(name: string, count: number, seed: number): FaceData {
  const draw = drawing(seed)
  const data: FaceData = { files: {}, sentiment: [], emotion: [] }
  for (let i = 0; i < count; i++) {
    const label = FACE_LABELS[i % FACE_LABELS.length] as Face
    const file = `${name}${i}.ppm`
    data.files[file] = face(label, draw)
    const [words, images] = [`'${MELD_WORDS[draw(MELD_WORDS.length)]}'`, [file]]
    data.sentiment.push({ query: `${words} <sentiment>`, response: FACES[label].sentiment, images })
    data.emotion.push({ query: `${words} <emotion>`, response: label, images })
  }
  return data
}
