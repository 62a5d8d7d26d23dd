// A relay that looks at nothing: what two receives and two sends cost.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <stdio.h>
static int peer[65536];
int main(int n, char **a){ int one=1; struct sockaddr_in l={.sin_family=AF_INET,.sin_port=htons(atoi(a[1])),.sin_addr.s_addr=htonl(INADDR_LOOPBACK)},o=l; o.sin_port=htons(atoi(a[2]));
 int s=socket(AF_INET,SOCK_STREAM,0); setsockopt(s,SOL_SOCKET,SO_REUSEADDR,&one,4); if(bind(s,(void*)&l,sizeof l)||listen(s,4096)) return 1;
 int e=epoll_create1(0); struct epoll_event ev={.events=EPOLLIN,.data.fd=s},evs[512]; epoll_ctl(e,EPOLL_CTL_ADD,s,&ev); static char buf[65536];
 for(;;){ int k=epoll_wait(e,evs,512,-1); for(int i=0;i<k;i++){ int f=evs[i].data.fd;
  if(f==s){ int c=accept(s,0,0),u=socket(AF_INET,SOCK_STREAM,0); if(connect(u,(void*)&o,sizeof o)) return 2; setsockopt(c,6,TCP_NODELAY,&one,4); setsockopt(u,6,TCP_NODELAY,&one,4); peer[c]=u; peer[u]=c; ev.events=EPOLLIN|EPOLLET; ev.data.fd=c; epoll_ctl(e,1,c,&ev); ev.data.fd=u; epoll_ctl(e,1,u,&ev); continue; }
  int g=recv(f,buf,sizeof buf,MSG_DONTWAIT); if(g<=0){ if(g==0){close(f);close(peer[f]);} continue; } send(peer[f],buf,g,MSG_NOSIGNAL); } } }
