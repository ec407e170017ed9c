import { listOf, misuse, requireObject, requireString } from '../../../base/check.js'

/** What was felt in a turn. */
export interface TrajectoryTurn {
  speaker: string
  emotion: string
  /** The right one, where it is known. */
  reference?: string
  /** The words. */
  text?: string
  /** Where the turn begins, in seconds. */
  start?: number
}

/** The emotions of a dialog over its turns. As JSON it is what it is. */
export interface EmotionalTrajectory {
  id?: string
  turns: TrajectoryTurn[]
  /** The model's answer in words. */
  summary?: string
  /** Whether the emotions are those of one answer about the whole dialog, or of a question about each turn. */
  emotionsFrom?: 'dialog' | 'turns'
}

/** A trajectory whose fields are what they should be. @throws ConfigError for anything else */
export function checkTrajectory(where: string, trajectory: EmotionalTrajectory): EmotionalTrajectory {
  requireObject(where, 'trajectory', trajectory)
  const turns = listOf(where, 'turns', trajectory.turns, 'turns')
  if (turns.length === 0) throw misuse(where, 'turns', 'a list of at least one turn', turns)
  for (const [i, turn] of turns.entries()) {
    requireString(where, `turns[${i}].speaker`, turn?.speaker)
    requireString(where, `turns[${i}].emotion`, turn.emotion)
    for (const field of ['reference', 'text'] as const) {
      if (turn[field] !== undefined) requireString(where, `turns[${i}].${field}`, turn[field])
    }
  }
  for (const field of ['id', 'summary'] as const) {
    if (trajectory[field] !== undefined) requireString(where, field, trajectory[field])
  }
  return trajectory
}

/** A trajectory as lines: each speaker's emotions, and the summary. */
export function trajectoryText(trajectory: EmotionalTrajectory): string {
  const { id, turns, summary } = checkTrajectory('trajectoryText', trajectory)
  const lines = speakersOf(turns).map((speaker) => {
    const own = turns.flatMap((turn, i) => (turn.speaker === speaker ? [{ ...turn, number: i + 1 }] : []))
    const steps = own.map(({ number, emotion, reference }) => {
      const wrong = reference !== undefined && reference !== emotion ? `, in truth ${reference}` : ''
      return `${emotion} (${number}${wrong})`
    })
    return `${speaker}: ${steps.join(' -> ')}`
  })
  return [...(id ? [id] : []), ...lines, ...(summary ? ['', summary] : [])].join('\n')
}

export const speakersOf = (turns: readonly TrajectoryTurn[]): string[] => [
  ...new Set(turns.map(({ speaker }) => speaker)),
]
