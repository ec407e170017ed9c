import { parseTextGrid } from '../../../lib/files/textgrid.js'
import type { FuzzTarget } from './target.js'

const LONG = `File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.75
            text = "the ""word"""
        intervals [2]:
            xmin = 0.75
            xmax = 1.5
            text = ""
    item [2]:
        class = "TextTier"
        name = "moments"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.5
            mark = "tick"
`
const SHORT = '"ooTextFile"\n"TextGrid"\n0\n1\n<exists>\n1\n"IntervalTier"\n"é"\n0\n1\n2\n0\n.5\n"a"\n5e-1\n1\n"b"\n'

export const target: FuzzTarget = {
  name: 'textgrid',
  words: ['"', '""', '<exists>', '<absent>', '"IntervalTier"', '"TextTier"', '1e9', '-1', 'nan', '! '],
  seeds: () => [
    Buffer.from(LONG),
    Buffer.from(`\ufeff${SHORT}`),
    Buffer.from(`\ufeff${SHORT}`, 'utf16le'),
    Buffer.from(`\ufeff${SHORT}`, 'utf16le').swap16(),
  ],
  run(bytes) {
    // The first byte chooses the options.
    const gaps = (['refuse', 'keep', 'fill'] as const)[(bytes[0] ?? 0) % 3] as 'refuse'
    parseTextGrid(bytes, 'fuzz', { gaps })
  },
}
