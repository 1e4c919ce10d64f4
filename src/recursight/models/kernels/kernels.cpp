// What Python calls: forward and backward of each cell, for floats and for doubles.
#include "grid.h"
#include "maps.h"
#include "sequence.h"

template <class T> using ElmanTanh = Elman<T, false>;
template <class T> using ElmanRelu = Elman<T, true>;
template <class T> using IndRnnTanh = IndRnn<T, false>;
template <class T> using IndRnnRelu = IndRnn<T, true>;

#define ENTRY(name, Form, Runner, Cell, T)                                                    \
    extern "C" void name##_forward(const Form<T>* work) { Runner<T, Cell>{*work}.forward(); } \
    extern "C" void name##_backward(const Form<T>* work) { Runner<T, Cell>{*work}.backward(); }
#define SEQUENCE(name, Cell)                                                  \
    ENTRY(name##_float, Sequence, Runner, Cell, float)                        \
    ENTRY(name##_double, Sequence, Runner, Cell, double)                      \
    extern "C" long name##_saved() { return Cell<float>::SAVED; }
#define GRID(name, Cell)                                                      \
    ENTRY(name##_float, Grid, GridRunner, Cell, float)                        \
    ENTRY(name##_double, Grid, GridRunner, Cell, double)                      \
    extern "C" long name##_saved() { return Cell<float>::SAVED; }
#define MAPS(name, Cell)                                                      \
    ENTRY(name##_float, Maps, MapRunner, Cell, float)                         \
    ENTRY(name##_double, Maps, MapRunner, Cell, double)                       \
    extern "C" long name##_saved() { return Cell<float>::SAVED; }

SEQUENCE(elman_tanh, ElmanTanh)
SEQUENCE(elman_relu, ElmanRelu)
SEQUENCE(lstm, Lstm)
SEQUENCE(gru, Gru)
SEQUENCE(slstm, Slstm)
SEQUENCE(indrnn_tanh, IndRnnTanh)
SEQUENCE(indrnn_relu, IndRnnRelu)
SEQUENCE(mingru, MinGru)
SEQUENCE(minlstm, MinLstm)
SEQUENCE(sru, Sru)
SEQUENCE(qrnn, Qrnn)
SEQUENCE(lru, Lru)
SEQUENCE(glu, Glu)
GRID(rnn2d, TanhCell)
GRID(mdlstm, LstmCell)
MAPS(conv_lstm, Lstm)
MAPS(conv_lstm_peepholes, PeepholeLstm)
MAPS(conv_gru, Gru)

// Elements that a row of states takes in memory, by the size of an element in bytes.
extern "C" long padded_width(long hidden, long bytes) {
    return bytes == 4 ? padded<float>(hidden) : padded<double>(hidden);
}
