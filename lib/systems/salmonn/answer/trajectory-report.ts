import { argumentError, listOf, requireObject, requireString } from '../../../base/check.js'

/** A turn and its emotion. */
export interface TrajectoryTurn {
  speaker: string
  emotion: string
  /** Reference emotion, if it is known. */
  reference?: string
  /** Transcript. */
  text?: string
  /** Start of the turn in seconds. */
  start?: number
}

/** Emotions of a dialog over its turns; serializes to JSON as it is. */
export interface EmotionalTrajectory {
  id?: string
  turns: TrajectoryTurn[]
  /** Model's answer without the line of emotions. */
  summary?: string
  /** Source of the emotions: one answer about the whole dialog, or one question per turn. */
  emotionsFrom?: 'dialog' | 'turns'
}

/** Check the fields of a trajectory, and return it. @throws ConfigError for an invalid field */
export function checkTrajectory(where: string, trajectory: EmotionalTrajectory): EmotionalTrajectory {
  requireObject(where, 'trajectory', trajectory)
  const turns = listOf(where, 'turns', trajectory.turns, 'turns')
  if (turns.length === 0) throw argumentError(where, 'turns', 'a list of at least one turn', turns)
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

/** Format a trajectory as text: a line of emotions for each speaker, and the summary. */
export function trajectoryText(trajectory: EmotionalTrajectory): string {
  const { id, turns, summary } = checkTrajectory('trajectoryText', trajectory)
  const lines = speakersOf(turns).map((speaker) => {
    const own = turns.flatMap((turn, i) => (turn.speaker === speaker ? [{ ...turn, number: i + 1 }] : []))
    const steps = own.map(({ number, emotion, reference }) => {
      const wrong = reference !== undefined && reference !== emotion ? `, reference ${reference}` : ''
      return `${emotion} (${number}${wrong})`
    })
    return `${speaker}: ${steps.join(' -> ')}`
  })
  return [...(id ? [id] : []), ...lines, ...(summary ? ['', summary] : [])].join('\n')
}

export const speakersOf = (turns: readonly TrajectoryTurn[]): string[] => [
  ...new Set(turns.map(({ speaker }) => speaker)),
]
