import { expect, it } from 'vitest'
import { ConfigError } from '../../../lib/index.js'
import { type SalmonnAnswersReport, salmonnAnswersPage } from '../../../lib/systems/salmonn/index.js'

const report: SalmonnAnswersReport = {
  title: 'A <model>',
  lead: 'Lead',
  figures: { head: ['', 'heard'], rows: [['words', '50 %']] },
  curves: [
    { name: 'training', points: [[1, 4], [2, 2]] }, // biome-ignore format: one line
    { name: 'validation', points: [[2, 2]] },
  ],
  answers: [
    { id: 'a', question: 'What?', right: '<b>', said: '', otherwise: 'no', isRight: false, wav: Uint8Array.of(82, 73) },
  ],
}

it('shows figures, curves and answers, with every text escaped', () => {
  const page = salmonnAnswersPage(report)
  expect(page).toContain('<h1>A &lt;model&gt;</h1>')
  expect(page).toContain('<dd>&lt;b&gt;</dd>')
  expect(page).toContain('<dd class="bad"><i>nothing</i></dd>')
  expect(page).toContain('src="data:audio/wav;base64,Ukk="')
  // Step 0 to 2 over 698 units, 0 to 4 over 246.
  expect(page).toContain('points="401,14 750,137"')
})

it.each([{}, { ...report, curves: [{ name: 'x' }] }, { ...report, answers: [{ id: 1 }] }])('refuses %j', (given) => {
  expect(() => salmonnAnswersPage(given as never)).toThrow(ConfigError)
})
