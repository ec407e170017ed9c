import { ofFormat } from './image.js'

export const target = ofFormat('jpg', '\xff\xd8', [
  '\xff\xc0',
  '\xff\xc2',
  '\xff\xc4',
  '\xff\xda',
  '\xff\xdb',
  '\xff\xdd',
  '\xff\xe1',
  '\xff\xee',
])
